"""The producer warpgroup: takes work tiles from the scheduler and copies Q, then every KV tile, to shared memory."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from .kv_tiles import (
    BLOCK_M,
    copy_async,
    count_kv_tiles,
    first_kv_tile,
    locate_work_tile,
    next_kv_tile,
    order_start,
)
from .packed_tiles import copy_packed, locate_packed

WARPGROUP_M = gl.constexpr(64)


@gluon.jit
def produce(
    q, k, v, pooled_k_ptr, pooled_v_ptr, packed, q_orders, orders, order_ptr, counter_ptr, lists, sizes, smem,
    barriers,
    D: gl.constexpr, LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr, STAGES: gl.constexpr,
    REORDER: gl.constexpr, ORDERED: gl.constexpr, GROUP: gl.constexpr, PACKED: gl.constexpr,
):  # fmt: skip
    """Fill the stages of K, V and Q as the consumers empty them, until no work tile is left."""
    k_ptr, k_stride_b, k_stride_h, k_stride = k
    v_ptr, v_stride_b, v_stride_h, v_stride = v
    batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows = sizes
    work_smem, q_smem, k_smem, v_smem = smem
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    index_ptr, of_head_ptr = orders
    # Of the levels whose rows are gathered.
    FIRST: gl.constexpr = 1 if PACKED else 0
    # Packed tiles and pooled rows are in order. (Triton 3.6 does not compile a look-up that never comes to pass.)
    INDEXED: gl.constexpr = REORDER and not PACKED
    # Half a tile at a time, to save registers: each thread copies 16 bytes, neighbouring threads a whole row.
    WIDTH: gl.constexpr = D // 8
    ROWS: gl.constexpr = TILE_N // 2 * WIDTH // (32 * gl.num_warps())
    layout: gl.constexpr = gl.BlockedLayout([ROWS, 8], [32 // WIDTH, WIDTH], [gl.num_warps(), 1], [1, 0])
    # Each row is looked up by one thread, which is given a row of both halves.
    halves: gl.constexpr = gl.BlockedLayout([1, 2], [32, 1], [gl.num_warps(), 1], [1, 0])
    slot = gl.arange(0, TILE_N // 2, gl.SliceLayout(1, halves))[:, None]
    slot += TILE_N // 2 * gl.arange(0, 2, gl.SliceLayout(0, halves))[None, :]
    d = gl.arange(0, D, gl.SliceLayout(0, layout))[None, :]
    n_work_tiles = (q_tokens + BLOCK_M - 1) // BLOCK_M * heads * batch

    work_count = gl.to_tensor(0)
    kv_count = gl.to_tensor(0)
    scheduled = gl.atomic_add(counter_ptr, 1)
    while scheduled < n_work_tiles:
        # The longest first, so that the last programs to finish have little left to do.
        work_tile = gl.load(order_ptr + scheduled) if ORDERED else scheduled
        query_block, b, h, blocks_ptr, spans_ptr = locate_work_tile(work_tile, lists, sizes, N_LEVELS)
        first_index = order_start(of_head_ptr, b * heads + h, k_tokens) if INDEXED else gl.to_tensor(0)
        n_tiles = count_kv_tiles(spans_ptr, TILE_N, FIRST, N_LEVELS)
        n_packed = 0
        if PACKED:
            n_rows, n_packed, first_tile = locate_packed(spans_ptr, (b * heads + h) // GROUP, k_tokens, TILE_N)
        scheduled = gl.atomic_add(counter_ptr, 1)
        # The rows of a tile are looked up one tile ahead and their blocks two, so that no copy waits for its address.
        cursor = first_kv_tile(blocks_ptr + n_packed, spans_ptr, k_tokens, FIRST, N_LEVELS)
        block, block_row = _look_up_blocks(slot, cursor, LOG_BLOCK_N)
        row = _look_up_rows(block, block_row, cursor, index_ptr, first_index, LOG_BLOCK_N, INDEXED)
        pooled = cursor[0] > 0
        if n_tiles > 1:
            cursor = next_kv_tile(cursor, spans_ptr, k_tokens, LOG_BLOCK_N, N_LEVELS, TILE_N)
            block, block_row = _look_up_blocks(slot, cursor, LOG_BLOCK_N)

        _announce_work_tile(work_tile, work_count, work_smem, q_full, q_empty)
        _copy_q(q, q_smem, q_full, work_count, query_block, b, h, heads, q_tokens, q_orders, d, REORDER)
        work_count += 1
        if PACKED:
            copy_packed(smem, barriers, packed, first_tile, blocks_ptr, kv_count, n_packed, STAGES)
            kv_count += n_packed

        k_first = k_ptr + b * k_stride_b + h // GROUP * k_stride_h
        v_first = v_ptr + b * v_stride_b + h // GROUP * v_stride_h
        pooled_k = pooled_k_ptr + (b * heads + h) // GROUP * pooled_rows * D
        pooled_v = pooled_v_ptr + (b * heads + h) // GROUP * pooled_rows * D
        for tile in range(kv_count, kv_count + n_tiles):
            k_base = gl.where(pooled, pooled_k, k_first)
            v_base = gl.where(pooled, pooled_v, v_first)
            k_step = gl.where(pooled, D, k_stride).to(gl.int64)
            v_step = gl.where(pooled, D, v_stride).to(gl.int64)
            rows = _spread(row, layout)
            row = _look_up_rows(block, block_row, cursor, index_ptr, first_index, LOG_BLOCK_N, INDEXED)
            pooled = cursor[0] > 0
            if tile + 2 < kv_count + n_tiles:
                cursor = next_kv_tile(cursor, spans_ptr, k_tokens, LOG_BLOCK_N, N_LEVELS, TILE_N)
                block, block_row = _look_up_blocks(slot, cursor, LOG_BLOCK_N)
            stage = tile % STAGES
            phase = ((tile // STAGES) & 1) ^ 1
            mbarrier.wait(k_empty.index(stage), phase)
            _copy_rows(k_smem.index(stage), k_full.index(stage), k_base, rows, k_step, d)
            mbarrier.wait(v_empty.index(stage), phase)
            _copy_rows(v_smem.index(stage), v_full.index(stage), v_base, rows, v_step, d)
        kv_count += n_tiles
    # A work tile past the last tells the consumers to stop.
    _announce_work_tile(n_work_tiles, work_count, work_smem, q_full, q_empty)
    async_copy.mbarrier_arrive(q_full.index(work_count & 1), increment_count=False)


@gluon.jit
def _look_up_blocks(slot, cursor, LOG_BLOCK_N: gl.constexpr):
    """Block of every slot of a tile, and the row in it. Slots past the last row repeat it; the softmax masks them."""
    level, first_row, n_rows, last_count, start, blocks_ptr = cursor
    log_rows = LOG_BLOCK_N - level
    slot = gl.maximum(gl.minimum(start + slot, n_rows - 1), 0)
    block = gl.load(blocks_ptr + (slot >> log_rows), mask=slot < n_rows, other=0)
    return block, slot & ((1 << log_rows) - 1)


@gluon.jit
def _look_up_rows(block, row, cursor, index_ptr, first_index, LOG_BLOCK_N: gl.constexpr, INDEXED: gl.constexpr):
    """Positions of a tile's rows: among the tokens at level 1, else among the pooled rows."""
    row += (block << (LOG_BLOCK_N - cursor[0])) + cursor[1]
    if INDEXED:
        if cursor[0] == 0:
            row = gl.load(index_ptr + (first_index + row)).to(gl.int32)
    return row


@gluon.jit
def _announce_work_tile(work_tile, work_count, work_smem, q_full, q_empty):
    """Give the consumers their next work tile, once both are done with the one whose stage it takes."""
    one: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    mbarrier.wait(q_empty.index(work_count & 1), ((work_count >> 1) & 1) ^ 1)
    work_smem.index(work_count & 1).store(gl.full([1], work_tile, gl.int32, one))
    mbarrier.arrive(q_full.index(work_count & 1))


@gluon.jit
def _copy_q(
    q, q_smem, q_full, work_count, query_block, b, h, heads, q_tokens, q_orders, d, REORDER: gl.constexpr
):  # fmt: skip
    """Copy the queries of both consumers. Those past the last repeat it, and are not written out."""
    q_ptr, q_stride_b, q_stride_h, q_stride = q
    layout: gl.constexpr = d.type.layout
    for consumer in gl.static_range(2):
        slot = consumer * WARPGROUP_M + gl.arange(0, WARPGROUP_M, gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
        position = gl.minimum(query_block * BLOCK_M + slot, q_tokens - 1)
        if REORDER:
            index_ptr, of_head_ptr = q_orders
            first_index = order_start(of_head_ptr, b * heads + h, q_tokens)
            position = gl.load(index_ptr + (first_index + position)).to(gl.int32)
        position = gl.convert_layout(position, gl.SliceLayout(1, layout)).to(gl.int64)
        q_at = q_ptr + b * q_stride_b + h * q_stride_h + position * q_stride
        copy_async(q_smem.index((work_count & 1) * 2 + consumer), q_at[:, None] + d)
    async_copy.mbarrier_arrive(q_full.index(work_count & 1), increment_count=False)


@gluon.jit
def _spread(row, layout: gl.constexpr):
    """Hand the rows of both halves of a tile to every thread that copies a part of them."""
    first, second = gl.split(row)
    per_row: gl.constexpr = gl.SliceLayout(1, layout)
    return gl.convert_layout(first, per_row), gl.convert_layout(second, per_row)


@gluon.jit
def _copy_rows(smem, full, base, rows, step, d):
    """Copy the rows of a tile to its stage, ``full`` once they are there."""
    HALF: gl.constexpr = smem.shape[0] // 2
    for half in gl.static_range(2):
        copy_async(smem.slice(half * HALF, HALF), (base + rows[half].to(gl.int64) * step)[:, None] + d)
    # Each thread arrives once its own copies have landed.
    async_copy.mbarrier_arrive(full, increment_count=False)
