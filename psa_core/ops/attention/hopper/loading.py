"""The loading warps: take items from the queue and gather their queries, then the rows of every tile."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from .walk import BLOCK_M, count_tiles, find_item, first_tile, next_tile

GROUP_M = gl.constexpr(64)
# Its name from Triton 3.9 on, and before.
_copy_async = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared


@gluon.jit
def load_items(
    q, k, v, pooled_k_ptr, pooled_v_ptr, index_ptr, order_ptr, queue_ptr, lists, sizes, smem, barriers,
    D: gl.constexpr, LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr, STAGES: gl.constexpr,
    REORDER: gl.constexpr, ORDERED: gl.constexpr,
):  # fmt: skip
    """Fill the ring of tiles, and two places for queries, as the attending groups empty them."""
    k_ptr, k_stride_b, k_stride_h, k_stride = k
    v_ptr, v_stride_b, v_stride_h, v_stride = v
    batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows = sizes
    item_smem, q_smem, k_smem, v_smem = smem
    q_ready, q_empty, k_ready, k_empty, v_ready, v_empty = barriers
    # Half a tile at a time, for the sake of registers: 16 bytes a thread, whole rows side by side.
    WIDTH: gl.constexpr = D // 8
    ROWS: gl.constexpr = TILE_N // 2 * WIDTH // (32 * gl.num_warps())
    layout: gl.constexpr = gl.BlockedLayout([ROWS, 8], [32 // WIDTH, WIDTH], [gl.num_warps(), 1], [1, 0])
    # Rows are looked up by one thread each, two in the threads that copy them.
    halves: gl.constexpr = gl.BlockedLayout([1, 2], [32, 1], [gl.num_warps(), 1], [1, 0])
    slot = gl.arange(0, TILE_N // 2, gl.SliceLayout(1, halves))[:, None]
    slot += TILE_N // 2 * gl.arange(0, 2, gl.SliceLayout(0, halves))[None, :]
    d = gl.arange(0, D, gl.SliceLayout(0, layout))[None, :]
    n_items = (q_tokens + BLOCK_M - 1) // BLOCK_M * heads * batch

    turn = gl.to_tensor(0)
    done = gl.to_tensor(0)
    queued = gl.atomic_add(queue_ptr, 1)
    while queued < n_items:
        # Items that keep much come first, so that they end with the others.
        item = gl.load(order_ptr + queued) if ORDERED else queued
        query_block, b, h, blocks_ptr, spans_ptr = find_item(item, lists, sizes, N_LEVELS)
        n_tiles = count_tiles(spans_ptr, TILE_N, N_LEVELS)
        queued = gl.atomic_add(queue_ptr, 1)
        # Rows are looked up one tile early and their blocks two, so that no copy waits for its address.
        place = first_tile(blocks_ptr, spans_ptr, k_tokens, N_LEVELS)
        block, block_row = _look_up_blocks(slot, place, LOG_BLOCK_N)
        row = _look_up_rows(block, block_row, place, index_ptr, LOG_BLOCK_N, REORDER)
        pooled = place[0] > 0
        if n_tiles > 1:
            place = next_tile(place, spans_ptr, k_tokens, LOG_BLOCK_N, N_LEVELS, TILE_N)
            block, block_row = _look_up_blocks(slot, place, LOG_BLOCK_N)

        _begin_item(item, turn, item_smem, q_ready, q_empty)
        _copy_queries(q, q_smem, q_ready, turn, query_block, b, h, q_tokens, index_ptr, d, REORDER)
        turn += 1

        k_first = k_ptr + b * k_stride_b + h * k_stride_h
        v_first = v_ptr + b * v_stride_b + h * v_stride_h
        pooled_k = pooled_k_ptr + (b * heads + h) * pooled_rows * D
        pooled_v = pooled_v_ptr + (b * heads + h) * pooled_rows * D
        for tile in range(done, done + n_tiles):
            k_base = gl.where(pooled, pooled_k, k_first)
            v_base = gl.where(pooled, pooled_v, v_first)
            k_step = gl.where(pooled, D, k_stride).to(gl.int64)
            v_step = gl.where(pooled, D, v_stride).to(gl.int64)
            rows = _spread(row, layout)
            row = _look_up_rows(block, block_row, place, index_ptr, LOG_BLOCK_N, REORDER)
            pooled = place[0] > 0
            if tile + 2 < done + n_tiles:
                place = next_tile(place, spans_ptr, k_tokens, LOG_BLOCK_N, N_LEVELS, TILE_N)
                block, block_row = _look_up_blocks(slot, place, LOG_BLOCK_N)
            stage = tile % STAGES
            emptied = ((tile // STAGES) & 1) ^ 1
            mbarrier.wait(k_empty.index(stage), emptied)
            _copy_rows(k_smem.index(stage), k_ready.index(stage), k_base, rows, k_step, d)
            mbarrier.wait(v_empty.index(stage), emptied)
            _copy_rows(v_smem.index(stage), v_ready.index(stage), v_base, rows, v_step, d)
        done += n_tiles
    # The end is an item past the last.
    _begin_item(n_items, turn, item_smem, q_ready, q_empty)
    async_copy.mbarrier_arrive(q_ready.index(turn & 1), increment_count=False)


@gluon.jit
def _look_up_blocks(slot, place, LOG_BLOCK_N: gl.constexpr):
    """Block of every slot of a tile, and the row in it. Slots past the last row hold that row again, to be masked."""
    level, first_row, n_rows, last, start, blocks_ptr = place
    log_rows = LOG_BLOCK_N - level
    slot = gl.maximum(gl.minimum(start + slot, n_rows - 1), 0)
    block = gl.load(blocks_ptr + (slot >> log_rows), mask=slot < n_rows, other=0)
    return block, slot & ((1 << log_rows) - 1)


@gluon.jit
def _look_up_rows(block, row, place, index_ptr, LOG_BLOCK_N: gl.constexpr, REORDER: gl.constexpr):
    """Where the rows of a tile lie: tokens at level 1, else rows of the pyramid."""
    row += (block << (LOG_BLOCK_N - place[0])) + place[1]
    if REORDER:
        if place[0] == 0:
            row = gl.load(index_ptr + row).to(gl.int32)
    return row


@gluon.jit
def _begin_item(item, turn, item_smem, q_ready, q_empty):
    """Tell the groups what comes, once both have done with what was there."""
    one: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    mbarrier.wait(q_empty.index(turn & 1), ((turn >> 1) & 1) ^ 1)
    item_smem.index(turn & 1).store(gl.full([1], item, gl.int32, one))
    mbarrier.arrive(q_ready.index(turn & 1))


@gluon.jit
def _copy_queries(q, q_smem, q_ready, turn, query_block, b, h, q_tokens, index_ptr, d, REORDER: gl.constexpr):
    """Both groups' queries; those past the last are the last again and are not written out."""
    q_ptr, q_stride_b, q_stride_h, q_stride = q
    layout: gl.constexpr = d.type.layout
    for group in gl.static_range(2):
        slot = group * GROUP_M + gl.arange(0, GROUP_M, gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
        position = gl.minimum(query_block * BLOCK_M + slot, q_tokens - 1)
        if REORDER:
            position = gl.load(index_ptr + position).to(gl.int32)
        position = gl.convert_layout(position, gl.SliceLayout(1, layout)).to(gl.int64)
        q_at = q_ptr + b * q_stride_b + h * q_stride_h + position * q_stride
        _copy_async(q_smem.index((turn & 1) * 2 + group), q_at[:, None] + d)
    async_copy.mbarrier_arrive(q_ready.index(turn & 1), increment_count=False)


@gluon.jit
def _spread(row, layout: gl.constexpr):
    """Rows of both halves of a tile, in every thread that copies a part of them."""
    first, second = gl.split(row)
    per_row: gl.constexpr = gl.SliceLayout(1, layout)
    return gl.convert_layout(first, per_row), gl.convert_layout(second, per_row)


@gluon.jit
def _copy_rows(smem, ready, base, rows, step, d):
    HALF: gl.constexpr = smem.shape[0] // 2
    for half in gl.static_range(2):
        _copy_async(smem.slice(half * HALF, HALF), (base + rows[half].to(gl.int64) * step)[:, None] + d)
    # Each thread arrives once its own copies have landed.
    async_copy.mbarrier_arrive(ready, increment_count=False)
