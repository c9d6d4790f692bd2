"""Pyramid attention in Triton: one online softmax over level 1 rows and pooled rows of the blocks in a list."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..block_list.build import BlockList
from ..block_list.triton import TOKEN_BITS, TOKEN_MASK
from ..compiling import launcher
from ..current_device import on_device_of_first
from ..grouped import group_of
from ..launch import Launch, attention_launch, capability_of
from ..pyramid.rows import Pyramid
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start


@triton.jit
def look_up_blocks(start, slot, n_rows, blocks_ptr, log_rows, ONE_BLOCK: tl.constexpr):
    """Block of every slot of a tile; a single one for all of them with ONE_BLOCK."""
    place = tl.minimum(start if ONE_BLOCK else start + slot, tl.maximum(n_rows, 1) - 1)
    # The list of a level may be empty.
    return tl.load(blocks_ptr + (place >> log_rows), mask=place < n_rows, other=0)


@triton.jit
def rows_of_blocks(block, start, slot, n_rows, log_rows, k_tokens, ONE_BLOCK: tl.constexpr):
    """Row of every slot of a tile, from its block. Slots past the last row repeat it."""
    if ONE_BLOCK:
        return tl.minimum((block << log_rows) + (start & ((1 << log_rows) - 1)) + slot, k_tokens - 1)
    place = tl.minimum(start + slot, tl.maximum(n_rows, 1) - 1)
    return (block << log_rows) + (place & ((1 << log_rows) - 1))


@triton.jit
def _tokens(index_ptr, first_index, block, start, slot, n_rows, log_rows, k_tokens, ONE_BLOCK: tl.constexpr):
    """Token of every slot of a tile, where the head's order begins at ``first_index``."""
    row = rows_of_blocks(block, start, slot, n_rows, log_rows, k_tokens, ONE_BLOCK)
    return tl.load(index_ptr + (first_index + row))


@triton.jit
def attend_level(
    acc, row_max, row_sum, q, k_ptr, v_ptr, index_ptr, first_index, k_stride, v_stride, blocks_ptr, span, level,
    k_tokens, scale, begin, stop, seen,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, TILE_N: tl.constexpr, ONE_BLOCK: tl.constexpr, REORDER: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """Online softmax (base 2) over the rows of the listed blocks of level ``2 ** level``, in tiles from begin to stop.

    Tiles run over the blocks' rows laid end to end, so blocks with fewer rows than a tile share one. ONE_BLOCK
    promises level 1 and blocks of a tile or more: the rows of a tile then lie side by side. With MASK, which is for
    level 1 too, each query takes the first ``seen`` rows, and all queries the very first.
    """
    n_rows = span >> TOKEN_BITS
    log_rows = LOG_BLOCK_N - level
    # A row stands for ``2 ** level`` tokens and has their logarithm added to its logit. The last one may stand for
    # fewer: P of slot i is scaled by ``end - i``, clamped to 0 to 1.
    bias = level * 1.0
    end = n_rows - 1 + (span & TOKEN_MASK) * tl.exp2(-bias)
    slot = tl.arange(0, TILE_N)
    d = tl.arange(0, D)[None, :]
    # Blocks are looked up a tile ahead, and then their tokens, so that no load waits for another. The pipeliner keeps
    # only the loads themselves ahead: what is computed from them it moves, load and all, to just before its use.
    block = look_up_blocks(begin, slot, n_rows, blocks_ptr, log_rows, ONE_BLOCK)
    if REORDER:
        token = _tokens(index_ptr, first_index, block, begin, slot, n_rows, log_rows, k_tokens, ONE_BLOCK)
        block = look_up_blocks(begin + TILE_N, slot, n_rows, blocks_ptr, log_rows, ONE_BLOCK)
    for start in range(begin, stop, TILE_N):
        if REORDER:
            row = token.to(tl.int32)
            after = start + TILE_N
            token = _tokens(index_ptr, first_index, block, after, slot, n_rows, log_rows, k_tokens, ONE_BLOCK)
            block = look_up_blocks(start + 2 * TILE_N, slot, n_rows, blocks_ptr, log_rows, ONE_BLOCK)
        else:
            row = rows_of_blocks(block, start, slot, n_rows, log_rows, k_tokens, ONE_BLOCK)
            block = look_up_blocks(start + TILE_N, slot, n_rows, blocks_ptr, log_rows, ONE_BLOCK)
        row = row.to(tl.int64)[:, None]
        k = tl.load(k_ptr + row * k_stride + d)
        s = tl.dot(q, tl.trans(k))
        if MASK:
            s = tl.where((start + slot)[None, :] < seen[:, None], s, float("-inf"))
        # Slots past the last row repeat it, so the maximum needs no mask, and it is finite.
        new_max = tl.maximum(row_max, tl.max(s, 1) * scale + bias)
        p = tl.exp2(s * scale - (new_max - bias)[:, None])
        if not MASK and n_rows - start <= TILE_N:
            p *= tl.clamp(end - (start + slot), 0.0, 1.0)[None, :]
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        v = tl.load(v_ptr + row * v_stride + d)
        acc = tl.dot(p.to(v.dtype), v, acc * rescale[:, None])
        row_max = new_max
    return acc, row_max, row_sum


@triton.jit
def attend_keys(
    acc, row_max, row_sum, q, k_ptr, v_ptr, index_ptr, first_index, k_stride, v_stride, blocks_ptr, span, k_tokens,
    scale, hidden_ptr, first, q_tokens,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, TILE_N: tl.constexpr, REORDER: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Online softmax over the keys of the listed blocks of level 1, for the queries from ``first`` on."""
    ONE_BLOCK: tl.constexpr = TILE_N <= 1 << LOG_BLOCK_N
    n_rows = span >> TOKEN_BITS
    seen, whole = 0, n_rows
    if CAUSAL:
        # Tiles that all queries see go first, without a mask: a branch in their loop would keep Triton from seeing that
        # one product follows from the other, and their layouts would not fit.
        seen = seen_rows(n_rows, hidden_ptr, first, q_tokens, q.shape[0])
        whole = tl.min(seen, 0) // TILE_N * TILE_N
    for cut in tl.static_range(2 if CAUSAL else 1):
        acc, row_max, row_sum = attend_level(
            acc, row_max, row_sum, q, k_ptr, v_ptr, index_ptr, first_index, k_stride, v_stride, blocks_ptr, span, 0,
            k_tokens, scale, whole if cut else 0, n_rows if cut else whole, seen,
            D, LOG_BLOCK_N, TILE_N, ONE_BLOCK, REORDER, cut == 1,
        )  # fmt: skip
    return acc, row_max, row_sum


@triton.jit
def seen_rows(n_rows, hidden_ptr, first, q_tokens, TILE_M: tl.constexpr):
    """How many of the rows of level 1 each query of a tile sees under the causal mask."""
    return n_rows - tl.load(hidden_ptr + tl.minimum(first + tl.arange(0, TILE_M), q_tokens - 1))


@triton.jit
def locate_tile(order_ptr, heads, q_tokens, BLOCK_M: tl.constexpr, TILE_M: tl.constexpr, ORDERED: tl.constexpr):
    """Batch entry, head, query block and first query of this program's tile."""
    TILES: tl.constexpr = BLOCK_M // TILE_M
    q_blocks = tl.cdiv(q_tokens, BLOCK_M)
    work_tile = tl.program_id(0) // TILES
    if ORDERED:
        # GPUs start programs in order. The longest come first, so that the last to finish have little left to do.
        work_tile = tl.load(order_ptr + work_tile)
    b = (work_tile // q_blocks // heads).to(tl.int64)
    h = (work_tile // q_blocks % heads).to(tl.int64)
    query_block = (work_tile % q_blocks).to(tl.int64)
    return b, h, query_block, (work_tile % q_blocks) * BLOCK_M + tl.program_id(0) % TILES * TILE_M


@triton.jit
def load_queries(
    q_ptr, q_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens,
    D: tl.constexpr, TILE_M: tl.constexpr, REORDER: tl.constexpr,
):  # fmt: skip
    """The queries of a tile ``[TILE_M, D]``; those past the last repeat it."""
    token = tl.minimum(first + tl.arange(0, TILE_M), q_tokens - 1)
    if REORDER:
        token = tl.load(q_index_ptr + (order_start(q_of_head_ptr, head, q_tokens) + token))
    return tl.load(q_ptr + token.to(tl.int64)[:, None] * q_stride + tl.arange(0, D)[None, :])


@triton.jit
def attend_pooled(
    acc, row_max, row_sum, q, pooled_k_ptr, pooled_v_ptr, blocks_ptr, spans_ptr, span, k_tokens, scale,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, N_LEVELS: tl.constexpr, TILE_N: tl.constexpr,
):  # fmt: skip
    """Online softmax over the pooled rows of all levels; ``span``: of level 1, whose blocks are listed first."""
    for level in range(1, N_LEVELS):
        log_rows = LOG_BLOCK_N - level
        blocks_ptr += tl.cdiv(span >> TOKEN_BITS, 2 << log_rows)
        span = tl.load(spans_ptr + level)
        acc, row_max, row_sum = attend_level(
            acc, row_max, row_sum, q, pooled_k_ptr, pooled_v_ptr, pooled_k_ptr, 0, D, D, blocks_ptr, span,
            level, k_tokens, scale, 0, span >> TOKEN_BITS, 0, D, LOG_BLOCK_N, TILE_N, False, False, False,
        )  # fmt: skip
        rows = (k_tokens + (1 << level) - 1) >> level
        pooled_k_ptr += rows.to(tl.int64) * D
        pooled_v_ptr += rows.to(tl.int64) * D
    return acc, row_max, row_sum


@triton.jit
def store_output(
    out_ptr, out_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens, acc, row_sum, REORDER: tl.constexpr
):  # fmt: skip
    """Divide a tile's sums and write it; zeros where nothing was kept."""
    TILE_M: tl.constexpr = acc.shape[0]
    D: tl.constexpr = acc.shape[1]
    out = acc / tl.where(row_sum > 0.0, row_sum, 1.0)[:, None]
    # Computed anew, so that positions need no registers during the loop.
    slot = tl.arange(0, TILE_M)
    inside = slot < q_tokens - first
    token = first + slot
    if REORDER:
        token = tl.load(q_index_ptr + (order_start(q_of_head_ptr, head, q_tokens) + token), mask=inside, other=0)
    out_at = out_ptr + token.to(tl.int64)[:, None] * out_stride + tl.arange(0, D)[None, :]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=inside[:, None])


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(
    do_not_specialize=[
        "heads", "q_tokens", "k_tokens", "k_blocks", "pooled_rows", "blocks_stride_b",
        "blocks_stride_h", "spans_stride_b", "spans_stride_h",
    ]
)  # fmt: skip
def _pyramid_attention(
    q_ptr, k_ptr, v_ptr, pooled_k_ptr, pooled_v_ptr, out_ptr, q_index_ptr, q_of_head_ptr, index_ptr, of_head_ptr,
    blocks_ptr, spans_ptr, order_ptr, hidden_ptr,
    q_stride_b, q_stride_h, q_stride, k_stride_b, k_stride_h, k_stride, v_stride_b, v_stride_h, v_stride,
    out_stride_b, out_stride_h, out_stride, blocks_stride_b, blocks_stride_h, spans_stride_b, spans_stride_h,
    heads, q_tokens, k_tokens, k_blocks, pooled_rows, scale,
    D: tl.constexpr, BLOCK_M: tl.constexpr, LOG_BLOCK_N: tl.constexpr, N_LEVELS: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, REORDER: tl.constexpr, ORDERED: tl.constexpr,
    GROUP: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head, of which GROUP share a head of keys and values."""
    b, h, query_block, first = locate_tile(order_ptr, heads, q_tokens, BLOCK_M, TILE_M, ORDERED)
    head = b * heads + h
    k_h = h // GROUP
    q_ptr += b * q_stride_b + h * q_stride_h
    q = load_queries(q_ptr, q_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens, D, TILE_M, REORDER)
    first_index = order_start(of_head_ptr, head, k_tokens) if REORDER else 0
    blocks_ptr += b * blocks_stride_b + h * blocks_stride_h + query_block * k_blocks
    spans_ptr += b * spans_stride_b + h * spans_stride_h + query_block * N_LEVELS
    acc = tl.zeros([TILE_M, D], tl.float32)
    row_max = tl.full([TILE_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([TILE_M], tl.float32)

    span = tl.load(spans_ptr)
    acc, row_max, row_sum = attend_keys(
        acc, row_max, row_sum, q,
        k_ptr + b * k_stride_b + k_h * k_stride_h, v_ptr + b * v_stride_b + k_h * v_stride_h, index_ptr,
        first_index, k_stride, v_stride, blocks_ptr, span, k_tokens, scale, hidden_ptr, first, q_tokens,
        D, LOG_BLOCK_N, TILE_N, REORDER, CAUSAL,
    )  # fmt: skip
    pooled_k_ptr += head // GROUP * pooled_rows * D
    pooled_v_ptr += head // GROUP * pooled_rows * D
    acc, row_max, row_sum = attend_pooled(
        acc, row_max, row_sum, q, pooled_k_ptr, pooled_v_ptr, blocks_ptr, spans_ptr, span, k_tokens, scale,
        D, LOG_BLOCK_N, N_LEVELS, TILE_N,
    )  # fmt: skip

    out_ptr += b * out_stride_b + h * out_stride_h
    store_output(out_ptr, out_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens, acc, row_sum, REORDER)


INTERPRETED = not isinstance(_pyramid_attention, triton.runtime.JITFunction)


@on_device_of_first
def pyramid_attention_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    pyramid: Pyramid,
    block_m: int,
    block_n: int,
    orders: Orders | None = None,
    q_orders: Orders | None = None,
    hidden: torch.Tensor | None = None,
    launch: Launch | None = None,
) -> torch.Tensor:
    """Attention of each query block over the rows it keeps.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, D 64 or 128, float16 or bfloat16, any strides. Hk divides H, and
            where heads have orders it is H.
        block_list: of the level map, for as many levels as the pyramid has or fewer; its B and H may be 1.
        pyramid: pooled rows of k and v, in the orders in which blocks are cut.
        block_m: tokens of a query block, which a tile of queries divides.
        block_n: tokens of a key block.
        orders: those orders. None when blocks are cut from tokens as they lie.
        q_orders: others for q and the output; None for the same, where q has as many tokens.
        hidden: int32 ``[Lq]``: how many keys at the end of those that its block keeps at level 1 each query does not
            see (:func:`psa_core.ops.causal.hidden_keys`); None where it sees all.
        launch: tiles and warps; None for those of the device.

    Returns:
        ``[B, H, Lq, D]`` in the order and dtype of q, in memory ``[B, Lq, H, D]``; zeros where a query block keeps
        nothing.
    """
    batch, heads, q_tokens, d = q.shape
    if launch is None:
        launch = attention_launch(capability_of(q.device), d, block_m)
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    group = group_of(q, k)
    assert orders is None or group == 1, "heads that share keys have no order of their own"
    index, q_index = order_tensors(orders, q), order_tensors(q_orders or orders, q)
    blocks, spans, order = block_list.expand(batch, heads)
    # In memory [B, L, H, D], which models reshape to [B, L, H * D] without a copy.
    out = torch.empty((batch, q_tokens, heads, d), dtype=q.dtype, device=q.device).transpose(1, 2)
    launcher(_pyramid_attention, (batch * heads * triton.cdiv(q_tokens, block_m) * (block_m // launch.tile_m),))(
        q, k, v, pyramid.k, pyramid.v, out, *q_index, *index, blocks, spans,
        spans if order is None else order, spans if hidden is None else hidden,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        *blocks.stride()[:2], *spans.stride()[:2],
        heads, q_tokens, k.shape[2], blocks.shape[3], pyramid.k.shape[2], d**-0.5 * math.log2(math.e),
        D=d, BLOCK_M=block_m, LOG_BLOCK_N=block_n.bit_length() - 1, N_LEVELS=spans.shape[3],
        TILE_M=launch.tile_m, TILE_N=launch.tile_n, REORDER=orders is not None,
        ORDERED=order is not None, GROUP=group, CAUSAL=hidden is not None,
        num_warps=launch.num_warps, num_stages=launch.num_stages,
    )  # fmt: skip
    return out
