"""The walk over the tiles of a query block: level by level, the rows of the listed blocks laid end to end.

A place in it is a tuple: level, row of the pyramid where the level begins, rows of the level, tokens of the last of
them, first row of the tile among them, and the part of the block list that names their blocks.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from ...block_list.triton import TOKEN_BITS, TOKEN_MASK

BLOCK_M = gl.constexpr(128)


@gluon.jit
def find_item(item, lists, sizes, N_LEVELS: gl.constexpr):
    """Query block, batch and head of an item, and its part of the block list."""
    blocks_ptr, spans_ptr, blocks_stride_b, blocks_stride_h, spans_stride_b, spans_stride_h = lists
    batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows = sizes
    q_blocks = (q_tokens + BLOCK_M - 1) // BLOCK_M
    query_block = item % q_blocks
    b = (item // q_blocks // heads).to(gl.int64)
    h = (item // q_blocks % heads).to(gl.int64)
    blocks_ptr += b * blocks_stride_b + h * blocks_stride_h + query_block.to(gl.int64) * k_blocks
    spans_ptr += b * spans_stride_b + h * spans_stride_h + query_block.to(gl.int64) * N_LEVELS
    return query_block, b, h, blocks_ptr, spans_ptr


@gluon.jit
def count_tiles(spans_ptr, TILE_N: gl.constexpr, N_LEVELS: gl.constexpr):
    """Tiles of a query block; every level begins a new one."""
    n_tiles = gl.to_tensor(0)
    for level in gl.static_range(N_LEVELS):
        n_tiles += ((gl.load(spans_ptr + level) >> TOKEN_BITS) + TILE_N - 1) // TILE_N
    return n_tiles


@gluon.jit
def first_tile(blocks_ptr, spans_ptr, k_tokens, N_LEVELS: gl.constexpr):
    """Where the walk begins: at the first level that keeps a block, or the last level when none does."""
    zero = gl.to_tensor(0)
    return _enter(zero, zero, blocks_ptr, spans_ptr, k_tokens, N_LEVELS)


@gluon.jit
def next_tile(place, spans_ptr, k_tokens, LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr):
    """One tile on, which there must be."""
    level, first_row, n_rows, last, start, blocks_ptr = place
    start += TILE_N
    if start >= n_rows:
        log_rows = LOG_BLOCK_N - level
        blocks_ptr += (n_rows + (1 << log_rows) - 1) >> log_rows
        first_row += _pooled_rows(level, k_tokens)
        level, first_row, n_rows, last, start, blocks_ptr = _enter(
            level + 1, first_row, blocks_ptr, spans_ptr, k_tokens, N_LEVELS
        )
    return level, first_row, n_rows, last, start, blocks_ptr


@gluon.jit
def _enter(level, first_row, blocks_ptr, spans_ptr, k_tokens, N_LEVELS: gl.constexpr):
    """The first tile of the first level, from ``level`` on, that keeps a block."""
    span = gl.load(spans_ptr + level)
    while (span == 0) & (level < N_LEVELS - 1):
        first_row += _pooled_rows(level, k_tokens)
        level += 1
        span = gl.load(spans_ptr + level)
    return level, first_row, span >> TOKEN_BITS, span & TOKEN_MASK, gl.to_tensor(0), blocks_ptr


@gluon.jit
def _pooled_rows(level, k_tokens):
    """Rows of a level in the pyramid, which holds none of level 1."""
    return gl.where(level > 0, (k_tokens + (1 << level) - 1) >> level, 0)
