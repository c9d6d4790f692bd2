"""Block lists in Triton: counting and prefix sums, one program a row; then the order of the rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..compiling import launcher
from ..current_device import on_device_of_first
from . import packing

TOKEN_BITS = tl.constexpr(packing.TOKEN_BITS)
TOKEN_MASK = tl.constexpr(packing.TOKEN_MASK)
N_SIZES = tl.constexpr(packing.N_SIZES)
LANES = 32
# Neighbouring blocks that one lane reads.
RUN = 16
# Rows that are sorted at a time.
ORDER_BLOCK = 2048


# A stride that Triton knew to be 1 would spread a run over the lanes, and every prefix sum would cross them. Sizes
# change from video to video, and nothing is gained by compiling for each.
@triton.jit(
    do_not_specialize=[
        "levels_stride_b", "levels_stride_h", "levels_stride_q", "levels_stride_k",
        "heads", "q_blocks", "k_blocks", "k_tokens",
    ]
)  # fmt: skip
def _list_blocks(
    levels_ptr, blocks_ptr, spans_ptr, sizes_ptr,
    levels_stride_b, levels_stride_h, levels_stride_q, levels_stride_k,
    heads, q_blocks, k_blocks, k_tokens,
    N_LEVELS: tl.constexpr, LOG_BLOCK_N: tl.constexpr, RUN: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """List the kept blocks of one row of the level map, level after level."""
    row = tl.program_id(0).to(tl.int64)
    head = row // q_blocks
    levels_ptr += (head // heads) * levels_stride_b + (head % heads) * levels_stride_h
    levels_ptr += (row % q_blocks) * levels_stride_q
    blocks_ptr += row * k_blocks
    level_of_last = tl.load(levels_ptr + tl.cast(k_blocks - 1, tl.int64) * levels_stride_k).to(tl.int32)
    # Tokens that the last block lacks.
    missing = (k_blocks << LOG_BLOCK_N) - k_tokens
    place = tl.arange(0, RUN)[:, None] + RUN * tl.arange(0, LANES)[None, :]
    kept = 0
    for i in range(N_LEVELS):
        count = 0
        for start in range(0, k_blocks, RUN * LANES):
            j = start + place
            level = tl.load(levels_ptr + j.to(tl.int64) * levels_stride_k, mask=j < k_blocks, other=0).to(tl.int32)
            listed = (level == (1 << i)).to(tl.int32)
            of_lane = tl.sum(listed, 0)
            up_to = count + (tl.cumsum(of_lane, 0) - of_lane)[None, :] + tl.cumsum(listed, 0)
            tl.store(blocks_ptr + up_to - 1, j, mask=listed > 0)
            count += tl.sum(of_lane, 0)
        short = tl.where(level_of_last == (1 << i), missing, 0)
        rows = (count << (LOG_BLOCK_N - i)) - (short >> i)
        tokens = tl.where(count > 0, (1 << i) - (short & ((1 << i) - 1)), 0)
        tl.store(spans_ptr + row * N_LEVELS + i, (rows << TOKEN_BITS) | tokens)
        blocks_ptr += count
        kept += rows
    octaves = tl.log2(tl.maximum(kept, 1).to(tl.float32) / k_tokens)
    tl.store(sizes_ptr + row, tl.clamp(tl.floor(-2 * octaves), 0.0, N_SIZES - 1.0).to(tl.int8))


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(do_not_specialize=["n_rows"])
def _order_by_size(sizes_ptr, order_ptr, n_rows, BLOCK: tl.constexpr):
    """Write the rows of one size, in their order, after those of all smaller sizes."""
    size = tl.program_id(0)
    before = tl.zeros([BLOCK], tl.int32)
    for start in range(0, n_rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        before += (tl.load(sizes_ptr + row, mask=row < n_rows, other=127) < size).to(tl.int32)
    place = tl.sum(before)
    for start in range(0, n_rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        here = (tl.load(sizes_ptr + row, mask=row < n_rows, other=127) == size).to(tl.int32)
        tl.store(order_ptr + place + tl.cumsum(here) - 1, row, mask=here > 0)
        place += tl.sum(here)


@on_device_of_first
def list_blocks_triton(
    levels: torch.Tensor, n_levels: int, block_n: int, k_tokens: int, order: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Blocks, spans and order of a block list; arguments and result as in ``build_block_list``, any strides."""
    batch, heads, q_blocks, k_blocks = levels.shape
    blocks = torch.empty(levels.shape, dtype=torch.int32, device=levels.device)
    spans = torch.empty((batch, heads, q_blocks, n_levels), dtype=torch.int32, device=levels.device)
    n_rows = batch * heads * q_blocks
    sizes = torch.empty(n_rows, dtype=torch.int8, device=levels.device)
    launcher(_list_blocks, (n_rows,))(
        levels, blocks, spans, sizes, *levels.stride(), heads, q_blocks, k_blocks, k_tokens,
        N_LEVELS=n_levels, LOG_BLOCK_N=block_n.bit_length() - 1, RUN=RUN, LANES=LANES, num_warps=1,
    )  # fmt: skip
    if order is None:
        order = torch.empty(n_rows, dtype=torch.int32, device=levels.device)
        launcher(_order_by_size, (packing.N_SIZES,))(sizes, order, n_rows, BLOCK=ORDER_BLOCK, num_warps=4)
    return blocks, spans, order
