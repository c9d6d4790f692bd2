"""Pyramid attention in Triton: one online softmax over level 1 rows and pooled rows of the blocks in a list."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ...pyramid import Pyramid
from ..launch import Launch, attention_launch, capability_of
from .block_list import build_block_list

LOG2_E = 1.4426950408889634


@triton.jit
def _attend(
    acc,
    row_max,
    row_sum,
    q,
    k_ptr,
    v_ptr,
    k_stride,
    k_stride_d,
    v_stride,
    v_stride_d,
    blocks_ptr,
    n_blocks,
    log_rows,
    log_level,
    n_tokens,
    scale,
    TILE_N: tl.constexpr,
    D: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
):
    """Fold the rows of the listed blocks at one level into the running softmax (base 2).

    A block has ``2 ** log_rows`` rows of ``2 ** log_level`` tokens each, the last ones fewer. Tiles run over the
    blocks' rows laid end to end, so blocks with fewer rows than a tile share one. ONE_BLOCK promises level 1 and
    blocks of a tile or more: the rows of a tile then lie side by side in memory.
    """
    d = tl.arange(0, D)
    n_rows = n_blocks << log_rows
    first = tl.arange(0, TILE_N)
    # A tile's blocks are looked up one tile early, so that no load of keys waits for another load.
    next_block = tl.load(blocks_ptr + (first >> log_rows), mask=first < n_rows, other=0)
    for start in range(0, n_rows, TILE_N):
        if ONE_BLOCK:
            block = tl.load(blocks_ptr + (start >> log_rows))
            row = (block << log_rows) + (start & ((1 << log_rows) - 1)) + first
            real = row < n_tokens
            bias = tl.where(real, 0.0, float("-inf"))
        else:
            slot = start + first
            block = next_block
            next_block = tl.load(blocks_ptr + ((slot + TILE_N) >> log_rows), mask=slot + TILE_N < n_rows, other=0)
            row = (block << log_rows) + (slot & ((1 << log_rows) - 1))
            count = tl.minimum(n_tokens - (row << log_level), 1 << log_level)
            real = (slot < n_rows) & (count > 0)
            bias = tl.where(real, tl.log2(tl.maximum(count, 1).to(tl.float32)), float("-inf"))
        offset = row.to(tl.int64)[:, None]
        k = tl.load(k_ptr + offset * k_stride + d[None, :] * k_stride_d, mask=real[:, None], other=0.0)
        v = tl.load(v_ptr + offset * v_stride + d[None, :] * v_stride_d, mask=real[:, None], other=0.0)
        logits = tl.dot(q, tl.trans(k)) * scale + bias[None, :]
        # Every block's first row is real and comes first, so the maximum is finite after the first tile.
        new_max = tl.maximum(row_max, tl.max(logits, 1))
        weights = tl.exp2(logits - new_max[:, None])
        shrink = tl.exp2(row_max - new_max)
        row_sum = row_sum * shrink + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
        row_max = new_max
    return acc, row_max, row_sum


@triton.jit
def _pyramid_attention(
    q_ptr, k_ptr, v_ptr, pooled_k_ptr, pooled_v_ptr, out_ptr, blocks_ptr, counts_ptr,
    q_stride_b, q_stride_h, q_stride, q_stride_d,
    k_stride_b, k_stride_h, k_stride, k_stride_d,
    v_stride_b, v_stride_h, v_stride, v_stride_d,
    out_stride_b, out_stride_h, out_stride,
    list_stride_b, list_stride_h, counts_stride_b, counts_stride_h,
    heads, q_tokens, k_tokens, k_blocks, pooled_rows, scale,
    D: tl.constexpr, BLOCK_M: tl.constexpr, LOG_BLOCK_N: tl.constexpr, N_LEVELS: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head."""
    n_tiles = tl.cdiv(q_tokens, TILE_M)
    tile = tl.program_id(0) % n_tiles
    b = (tl.program_id(0) // n_tiles // heads).to(tl.int64)
    h = (tl.program_id(0) // n_tiles % heads).to(tl.int64)
    query_block = (tile * TILE_M // BLOCK_M).to(tl.int64)
    d = tl.arange(0, D)
    position = tile * TILE_M + tl.arange(0, TILE_M)
    inside = position < q_tokens
    offset = position.to(tl.int64)[:, None]
    q_at = q_ptr + b * q_stride_b + h * q_stride_h + offset * q_stride + d[None, :] * q_stride_d
    q = tl.load(q_at, mask=inside[:, None], other=0.0)

    blocks_ptr += b * list_stride_b + h * list_stride_h + query_block * k_blocks
    counts_ptr += b * counts_stride_b + h * counts_stride_h + query_block * N_LEVELS
    pooled = (b * heads + h) * pooled_rows * D
    pooled_k_ptr += pooled
    pooled_v_ptr += pooled
    acc = tl.zeros([TILE_M, D], tl.float32)
    row_max = tl.full([TILE_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([TILE_M], tl.float32)

    count = tl.load(counts_ptr)
    acc, row_max, row_sum = _attend(
        acc, row_max, row_sum, q,
        k_ptr + b * k_stride_b + h * k_stride_h, v_ptr + b * v_stride_b + h * v_stride_h,
        k_stride, k_stride_d, v_stride, v_stride_d,
        blocks_ptr, count, LOG_BLOCK_N, 0, k_tokens, scale, TILE_N, D, TILE_N <= 1 << LOG_BLOCK_N,
    )  # fmt: skip
    for level in range(1, N_LEVELS):
        blocks_ptr += count
        count = tl.load(counts_ptr + level)
        acc, row_max, row_sum = _attend(
            acc, row_max, row_sum, q, pooled_k_ptr, pooled_v_ptr, D, 1, D, 1,
            blocks_ptr, count, LOG_BLOCK_N - level, level, k_tokens, scale, TILE_N, D, False,
        )  # fmt: skip
        rows = (k_tokens + (1 << level) - 1) >> level
        pooled_k_ptr += rows.to(tl.int64) * D
        pooled_v_ptr += rows.to(tl.int64) * D

    out = acc / tl.where(row_sum > 0.0, row_sum, 1.0)[:, None]
    out_at = out_ptr + b * out_stride_b + h * out_stride_h + offset * out_stride + d[None, :]
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=inside[:, None])


INTERPRETED = not isinstance(_pyramid_attention, triton.runtime.JITFunction)


def pyramid_attention_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    pyramid: Pyramid,
    block_m: int,
    block_n: int,
    launch: Launch | None = None,
) -> torch.Tensor:
    """Attention of each query block over the rows it keeps.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, H, Lk, D]``, D 64 or 128, float16 or bfloat16, any strides.
        levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``.
        pyramid: pooled rows of k and v.
        launch: tiles and warps; None for those of the device.

    Returns:
        ``[B, H, Lq, D]``, contiguous, in the dtype of q; zeros where a query block keeps nothing.
    """
    batch, heads, q_tokens, d = q.shape
    k_tokens = k.shape[2]
    if launch is None:
        launch = attention_launch(capability_of(q.device), d, block_m)
    blocks, counts = build_block_list(levels, pyramid.max_level)
    blocks, counts = (x.expand(batch, heads, -1, -1) for x in (blocks, counts))
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(q):
        _pyramid_attention[(triton.cdiv(q_tokens, launch.tile_m) * batch * heads,)](
            q, k, v, pyramid.k, pyramid.v, out, blocks, counts,
            *q.stride(), *k.stride(), *v.stride(), *out.stride()[:3],
            *blocks.stride()[:2], *counts.stride()[:2],
            heads, q_tokens, k_tokens, blocks.shape[3], pyramid.k.shape[2], d**-0.5 * LOG2_E,
            D=d, BLOCK_M=block_m, LOG_BLOCK_N=block_n.bit_length() - 1, N_LEVELS=counts.shape[3],
            TILE_M=launch.tile_m, TILE_N=launch.tile_n, num_warps=launch.num_warps, num_stages=launch.num_stages,
        )  # fmt: skip
    return out
