"""The KV tiles of a work tile: level by level, the rows of the listed blocks end to end, cut into tiles of TILE_N.

Producer and consumers step through them with a cursor each, a tuple of: level (its base 2 logarithm), pooled row at
which the level begins, rows of the level that are kept, tokens that the last of them stands for, first row of the
tile, and pointer to the level's part of the block list.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from ...block_list.triton import TOKEN_BITS, TOKEN_MASK

BLOCK_M = gl.constexpr(128)
# Its name from Triton 3.9 on, and before.
copy_async = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared


@gluon.jit
def locate_work_tile(work_tile, lists, sizes, N_LEVELS: gl.constexpr):
    """Query block, batch and head of a work tile, and pointers to its blocks and spans in the block list."""
    blocks_ptr, spans_ptr, blocks_stride_b, blocks_stride_h, spans_stride_b, spans_stride_h = lists
    batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows = sizes
    q_blocks = (q_tokens + BLOCK_M - 1) // BLOCK_M
    query_block = work_tile % q_blocks
    b = (work_tile // q_blocks // heads).to(gl.int64)
    h = (work_tile // q_blocks % heads).to(gl.int64)
    blocks_ptr += b * blocks_stride_b + h * blocks_stride_h + query_block.to(gl.int64) * k_blocks
    spans_ptr += b * spans_stride_b + h * spans_stride_h + query_block.to(gl.int64) * N_LEVELS
    return query_block, b, h, blocks_ptr, spans_ptr


@gluon.jit
def order_start(of_head_ptr, head, n_tokens):
    """Where in the index the order of a head begins; ``head`` counts those of all batch entries."""
    return gl.load(of_head_ptr + head) * n_tokens


@gluon.jit
def count_kv_tiles(spans_ptr, TILE_N: gl.constexpr, FIRST: gl.constexpr, N_LEVELS: gl.constexpr):
    """KV tiles of the levels from ``FIRST`` on of a query block; every level begins a new one."""
    n_tiles = gl.to_tensor(0)
    for level in gl.static_range(FIRST, N_LEVELS):
        n_tiles += ((gl.load(spans_ptr + level) >> TOKEN_BITS) + TILE_N - 1) // TILE_N
    return n_tiles


@gluon.jit
def first_kv_tile(blocks_ptr, spans_ptr, k_tokens, FIRST: gl.constexpr, N_LEVELS: gl.constexpr):
    """Cursor at the first tile of the first level, from ``FIRST`` on, that keeps a block; without a row if none does.

    ``blocks_ptr``: at the blocks of ``FIRST``.
    """
    zero = gl.to_tensor(0)
    if FIRST < N_LEVELS:
        cursor = _enter(gl.to_tensor(FIRST), zero, blocks_ptr, spans_ptr, k_tokens, N_LEVELS)
    else:
        cursor = (zero, zero, zero, zero, zero, blocks_ptr)
    return cursor


@gluon.jit
def next_kv_tile(cursor, spans_ptr, k_tokens, LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr):
    """Cursor at the next tile, which must exist."""
    level, first_row, n_rows, last_count, start, blocks_ptr = cursor
    start += TILE_N
    if start >= n_rows:
        log_rows = LOG_BLOCK_N - level
        blocks_ptr += (n_rows + (1 << log_rows) - 1) >> log_rows
        first_row += _pooled_rows(level, k_tokens)
        level, first_row, n_rows, last_count, start, blocks_ptr = _enter(
            level + 1, first_row, blocks_ptr, spans_ptr, k_tokens, N_LEVELS
        )
    return level, first_row, n_rows, last_count, start, blocks_ptr


@gluon.jit
def _enter(level, first_row, blocks_ptr, spans_ptr, k_tokens, N_LEVELS: gl.constexpr):
    """Cursor at the first tile of the first level, from ``level`` on, that keeps a block."""
    span = gl.load(spans_ptr + level)
    while (span == 0) & (level < N_LEVELS - 1):
        first_row += _pooled_rows(level, k_tokens)
        level += 1
        span = gl.load(spans_ptr + level)
    return level, first_row, span >> TOKEN_BITS, span & TOKEN_MASK, gl.to_tensor(0), blocks_ptr


@gluon.jit
def _pooled_rows(level, k_tokens):
    """Rows of a level in the pyramid, which has none of level 1."""
    return gl.where(level > 0, (k_tokens + (1 << level) - 1) >> level, 0)
