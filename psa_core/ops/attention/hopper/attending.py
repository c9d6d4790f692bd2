"""An attending group: four warps that attend with 64 queries of every item."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from .loading import GROUP_M
from .walk import BLOCK_M, count_tiles, find_item, first_tile, next_tile


@gluon.jit
def attend_items(
    GROUP: gl.constexpr, out, index_ptr, scale, lists, sizes, smem, barriers,
    D: gl.constexpr, LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr, STAGES: gl.constexpr,
    REORDER: gl.constexpr,
):  # fmt: skip
    """Take what the loading warps bring until an item past the last comes."""
    batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows = sizes
    item_smem, q_smem, k_smem, v_smem = smem
    q_ready, q_empty, k_ready, k_empty, v_ready, v_empty = barriers
    logit_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_N, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    weight_layout: gl.constexpr = gl.DotOperandLayout(0, acc_layout, 2)
    dtype: gl.constexpr = q_smem.dtype
    n_items = (q_tokens + BLOCK_M - 1) // BLOCK_M * heads * batch

    done = gl.to_tensor(0)
    turn = gl.to_tensor(0)
    item = _await_item(item_smem, q_ready, turn)
    while item < n_items:
        query_block, b, h, blocks_ptr, spans_ptr = find_item(item, lists, sizes, N_LEVELS)
        n_tiles = count_tiles(spans_ptr, TILE_N, N_LEVELS)
        acc = gl.zeros([GROUP_M, D], gl.float32, acc_layout)
        row_max = gl.full([GROUP_M], float("-inf"), gl.float32, gl.SliceLayout(1, logit_layout))
        row_sum = gl.zeros([GROUP_M], gl.float32, gl.SliceLayout(1, logit_layout))
        if n_tiles > 0:
            queries = q_smem.index((turn & 1) * 2 + GROUP)
            place = first_tile(blocks_ptr, spans_ptr, k_tokens, N_LEVELS)
            token = _multiply_keys(queries, k_smem, k_ready, done, STAGES, logit_layout)
            logits = warpgroup_mma_wait(0, deps=[token])
            mbarrier.arrive(k_empty.index(done % STAGES))
            weights, shrink, row_max, row_sum = _softmax(logits, row_max, row_sum, scale, place)
            operand = gl.convert_layout(weights.to(dtype), weight_layout)
            for tile in range(done + 1, done + n_tiles):
                place = next_tile(place, spans_ptr, k_tokens, LOG_BLOCK_N, N_LEVELS, TILE_N)
                # This tile's softmax goes on while the tensor cores still add the values of the one before.
                token = _multiply_keys(queries, k_smem, k_ready, tile, STAGES, logit_layout)
                acc_token = _add_values(operand, v_smem, v_ready, acc, tile - 1, STAGES)
                logits = warpgroup_mma_wait(1, deps=[token])
                mbarrier.arrive(k_empty.index(tile % STAGES))
                weights, shrink, row_max, row_sum = _softmax(logits, row_max, row_sum, scale, place)
                acc, operand = warpgroup_mma_wait(0, deps=[acc_token, operand])
                mbarrier.arrive(v_empty.index((tile - 1) % STAGES))
                acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, acc_layout))[:, None]
                operand = gl.convert_layout(weights.to(dtype), weight_layout)
            done += n_tiles
            # The next queries may come while the last values are added.
            mbarrier.arrive(q_empty.index(turn & 1))
            acc_token = _add_values(operand, v_smem, v_ready, acc, done - 1, STAGES)
            acc = warpgroup_mma_wait(0, deps=[acc_token])
            mbarrier.arrive(v_empty.index((done - 1) % STAGES))
        else:
            mbarrier.arrive(q_empty.index(turn & 1))
        first = query_block * BLOCK_M + GROUP * GROUP_M
        _store_rows(out, acc, row_sum, first, b, h, q_tokens, index_ptr, dtype, REORDER)
        turn += 1
        item = _await_item(item_smem, q_ready, turn)


@gluon.jit
def _await_item(item_smem, q_ready, turn):
    mbarrier.wait(q_ready.index(turn & 1), (turn >> 1) & 1)
    return gl.max(item_smem.index(turn & 1).load(gl.BlockedLayout([1], [32], [4], [0])), 0)


@gluon.jit
def _multiply_keys(queries, k_smem, k_ready, tile, STAGES: gl.constexpr, layout: gl.constexpr):
    """Begin the product of the queries and a tile of keys."""
    mbarrier.wait(k_ready.index(tile % STAGES), (tile // STAGES) & 1)
    # The rows came by ordinary stores; the tensor cores read as the copy engine does.
    fence_async_shared()
    TILE_N: gl.constexpr = k_smem.shape[1]
    zero = gl.zeros([GROUP_M, TILE_N], gl.float32, layout)
    return warpgroup_mma(queries, k_smem.index(tile % STAGES).permute((1, 0)), zero, use_acc=False, is_async=True)


@gluon.jit
def _add_values(weights, v_smem, v_ready, acc, tile, STAGES: gl.constexpr):
    """Begin to add a tile of values to the accumulator."""
    mbarrier.wait(v_ready.index(tile % STAGES), (tile // STAGES) & 1)
    fence_async_shared()
    return warpgroup_mma(weights, v_smem.index(tile % STAGES), acc, is_async=True)


@gluon.jit
def _softmax(logits, row_max, row_sum, scale, place):
    """One step of the online softmax in base 2.

    A row's logit gets the base 2 logarithm of its tokens, which is ``level``. Slots past the last row hold that row
    again, so the maximum needs no mask; the last row's weight shrinks to the share of its ``last`` tokens.
    """
    level, first_row, n_rows, last, start, blocks_ptr = place
    TILE_N: gl.constexpr = logits.shape[1]
    bias = level.to(gl.float32)
    new_max = gl.maximum(row_max, gl.max(logits, 1) * scale + bias)
    weights = gl.exp2(logits * scale - (new_max - bias)[:, None])
    if n_rows - start <= TILE_N:
        slot = gl.arange(0, TILE_N, gl.SliceLayout(0, logits.type.layout))
        end = (n_rows - start - 1).to(gl.float32) + last.to(gl.float32) / (1 << level).to(gl.float32)
        weights *= gl.minimum(gl.maximum(end - slot.to(gl.float32), 0.0), 1.0)[None, :]
    shrink = gl.exp2(row_max - new_max)
    row_sum = row_sum * shrink + gl.sum(weights, 1)
    return weights, shrink, new_max, row_sum


@gluon.jit
def _store_rows(
    out, acc, row_sum, first, b, h, q_tokens, index_ptr, dtype: gl.constexpr, REORDER: gl.constexpr
):  # fmt: skip
    out_ptr, out_stride_b, out_stride_h, out_stride = out
    layout: gl.constexpr = acc.type.layout
    D: gl.constexpr = acc.shape[1]
    share = gl.convert_layout(gl.where(row_sum > 0.0, 1.0 / row_sum, 0.0), gl.SliceLayout(1, layout))
    position = first + gl.arange(0, GROUP_M, gl.SliceLayout(1, layout))
    inside = position < q_tokens
    if REORDER:
        position = gl.load(index_ptr + position, mask=inside, other=0).to(gl.int32)
    out_at = out_ptr + b * out_stride_b + h * out_stride_h + position.to(gl.int64) * out_stride
    d = gl.arange(0, D, gl.SliceLayout(0, layout))[None, :]
    gl.store(out_at[:, None] + d, (acc * share[:, None]).to(dtype), mask=inside[:, None])
