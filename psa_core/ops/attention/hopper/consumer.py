"""A consumer warpgroup: attention of 64 of the queries of every work tile."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, warpgroup_mma_wait

from .kv_tiles import BLOCK_M, count_kv_tiles, first_kv_tile, locate_work_tile, next_kv_tile, order_start
from .packed_tiles import attend_packed, locate_packed
from .producer import WARPGROUP_M
from .products import issue_pv, issue_qk


@gluon.jit
def consume(
    CONSUMER: gl.constexpr, out, packed, q_orders, hidden_ptr, scale, lists, sizes, smem, q8_smem, barriers,
    D: gl.constexpr, LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr, STAGES: gl.constexpr,
    REORDER: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr, PACKED: gl.constexpr,
):  # fmt: skip
    """Compute work tile after work tile, until the producer announces one past the last."""
    batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows = sizes
    work_smem, q_smem, k_smem, v_smem = smem
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_N, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    per_row: gl.constexpr = gl.SliceLayout(1, s_layout)
    # Of the levels whose rows are gathered.
    FIRST: gl.constexpr = 1 if PACKED else 0
    n_work_tiles = (q_tokens + BLOCK_M - 1) // BLOCK_M * heads * batch

    kv_count = gl.to_tensor(0)
    work_count = gl.to_tensor(0)
    work_tile = _await_work_tile(work_smem, q_full, work_count)
    while work_tile < n_work_tiles:
        query_block, b, h, blocks_ptr, spans_ptr = locate_work_tile(work_tile, lists, sizes, N_LEVELS)
        q = q_smem.index((work_count & 1) * 2 + CONSUMER)
        o = gl.zeros([WARPGROUP_M, D], gl.float32, o_layout)
        row_max = gl.full([WARPGROUP_M], float("-inf"), gl.float32, per_row)
        row_sum = gl.zeros([WARPGROUP_M], gl.float32, per_row)
        unseen = _unseen(hidden_ptr, query_block * BLOCK_M + CONSUMER * WARPGROUP_M, q_tokens, CAUSAL)
        n_packed = 0
        if PACKED:
            head = (b * heads + h) // GROUP
            n_rows, n_packed, first_tile = locate_packed(spans_ptr, head, k_tokens, TILE_N)
            if n_packed > 0:
                o, row_max, row_sum = attend_packed(
                    o, row_max, row_sum, q, q8_smem.index(CONSUMER), scale, packed, smem, barriers, head, first_tile,
                    blocks_ptr, n_rows, kv_count, n_packed, STAGES,
                )  # fmt: skip
                kv_count += n_packed
        n_tiles = count_kv_tiles(spans_ptr, TILE_N, FIRST, N_LEVELS)
        if n_tiles > 0:
            cursor = first_kv_tile(blocks_ptr + n_packed, spans_ptr, k_tokens, FIRST, N_LEVELS)
            o, row_max, row_sum = _attend_rows(
                o, row_max, row_sum, q, scale, cursor, unseen, smem, barriers, spans_ptr, k_tokens, kv_count, n_tiles,
                LOG_BLOCK_N, N_LEVELS, TILE_N, STAGES, CAUSAL,
            )  # fmt: skip
            kv_count += n_tiles
        mbarrier.arrive(q_empty.index(work_count & 1))
        first = query_block * BLOCK_M + CONSUMER * WARPGROUP_M
        _store_o(out, o, row_sum, first, b, h, heads, q_tokens, q_orders, q_smem.dtype, REORDER)
        work_count += 1
        work_tile = _await_work_tile(work_smem, q_full, work_count)


@gluon.jit
def _attend_rows(
    o, row_max, row_sum, q, scale, cursor, unseen, smem, barriers, spans_ptr, k_tokens, kv_count, n_tiles,
    LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr, STAGES: gl.constexpr,
    CAUSAL: gl.constexpr,
):  # fmt: skip
    """Online softmax over ``n_tiles`` KV tiles, more than none, of 16-bit rows."""
    work_smem, q_smem, k_smem, v_smem = smem
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    s_layout: gl.constexpr = row_max.type.layout.parent
    o_layout: gl.constexpr = o.type.layout
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    dtype: gl.constexpr = q.dtype
    s_token = issue_qk(q, k_smem, k_full, kv_count, STAGES, s_layout)
    s = warpgroup_mma_wait(0, deps=[s_token])
    mbarrier.arrive(k_empty.index(kv_count % STAGES))
    p, rescale, row_max, row_sum = _online_softmax(s, row_max, row_sum, scale, cursor, unseen, CAUSAL)
    o = o * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None]
    p_operand = gl.convert_layout(p.to(dtype), p_layout)
    for tile in range(kv_count + 1, kv_count + n_tiles):
        cursor = next_kv_tile(cursor, spans_ptr, k_tokens, LOG_BLOCK_N, N_LEVELS, TILE_N)
        # The softmax of this tile runs while the tensor cores multiply P and V of the one before.
        s_token = issue_qk(q, k_smem, k_full, tile, STAGES, s_layout)
        o_token = issue_pv(p_operand, v_smem, v_full, o, tile - 1, STAGES)
        s = warpgroup_mma_wait(1, deps=[s_token])
        mbarrier.arrive(k_empty.index(tile % STAGES))
        p, rescale, row_max, row_sum = _online_softmax(s, row_max, row_sum, scale, cursor, unseen, CAUSAL)
        o, p_operand = warpgroup_mma_wait(0, deps=[o_token, p_operand])
        mbarrier.arrive(v_empty.index((tile - 1) % STAGES))
        o = o * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None]
        p_operand = gl.convert_layout(p.to(dtype), p_layout)
    last = kv_count + n_tiles - 1
    o_token = issue_pv(p_operand, v_smem, v_full, o, last, STAGES)
    o = warpgroup_mma_wait(0, deps=[o_token])
    mbarrier.arrive(v_empty.index(last % STAGES))
    return o, row_max, row_sum


@gluon.jit
def _await_work_tile(work_smem, q_full, work_count):
    """The next work tile, once its queries are in shared memory."""
    mbarrier.wait(q_full.index(work_count & 1), (work_count >> 1) & 1)
    return gl.max(work_smem.index(work_count & 1).load(gl.BlockedLayout([1], [32], [4], [0])), 0)


@gluon.jit
def _unseen(hidden_ptr, first, q_tokens, CAUSAL: gl.constexpr):
    """What the causal mask hides of level 1 from the queries from ``first`` on: how many last keys from the first, from
    the others no more; where the numbers of all are, which are loaded when they matter; and how many follow the first.
    """
    first = gl.minimum(first, q_tokens - 1)
    most = 0
    if CAUSAL:
        most = gl.load(hidden_ptr + first)
    return most, hidden_ptr + first, q_tokens - 1 - first


@gluon.jit
def _online_softmax(s, row_max, row_sum, scale, cursor, unseen, CAUSAL: gl.constexpr):
    """One step of the online softmax in base 2.

    A row that stands for ``2 ** level`` tokens has their base 2 logarithm, ``level``, added to its logit. Slots past
    the last row repeat it, so the maximum needs no mask; their P is 0, and that of the last row, which may stand for
    fewer tokens, is scaled by its share of ``2 ** level``.

    Returns:
        P, the factor by which O is to be rescaled, and the new ``row_max`` and ``row_sum``.
    """
    level, first_row, n_rows, last_count, start, blocks_ptr = cursor
    TILE_N: gl.constexpr = s.shape[1]
    if CAUSAL:
        most_hidden, hidden_ptr, last = unseen
        if (level == 0) & (start + TILE_N > n_rows - most_hidden):
            query = gl.arange(0, WARPGROUP_M, gl.SliceLayout(1, s.type.layout))
            seen = n_rows - start - gl.load(hidden_ptr + gl.minimum(query, last))
            slot = gl.arange(0, TILE_N, gl.SliceLayout(0, s.type.layout))
            s = gl.where(slot[None, :] < seen[:, None], s, float("-inf"))
    bias = level.to(gl.float32)
    new_max = gl.maximum(row_max, gl.max(s, 1) * scale + bias)
    p = gl.exp2(s * scale - (new_max - bias)[:, None])
    if n_rows - start <= TILE_N:
        slot = gl.arange(0, TILE_N, gl.SliceLayout(0, s.type.layout))
        share = last_count.to(gl.float32) / (1 << level).to(gl.float32)
        p *= gl.minimum(gl.maximum((n_rows - start - 1 - slot).to(gl.float32) + share, 0.0), 1.0)[None, :]
    rescale = gl.exp2(row_max - new_max)
    row_sum = row_sum * rescale + gl.sum(p, 1)
    return p, rescale, new_max, row_sum


@gluon.jit
def _store_o(
    out, o, row_sum, first, b, h, heads, q_tokens, q_orders, dtype: gl.constexpr, REORDER: gl.constexpr
):  # fmt: skip
    """Divide O by the row sums and write it; zeros where nothing was kept."""
    out_ptr, out_stride_b, out_stride_h, out_stride = out
    layout: gl.constexpr = o.type.layout
    D: gl.constexpr = o.shape[1]
    inverse = gl.convert_layout(gl.where(row_sum > 0.0, 1.0 / row_sum, 0.0), gl.SliceLayout(1, layout))
    position = first + gl.arange(0, WARPGROUP_M, gl.SliceLayout(1, layout))
    inside = position < q_tokens
    if REORDER:
        index_ptr, of_head_ptr = q_orders
        # Looked up anew, so that it needs no register during the loop.
        position += order_start(of_head_ptr, b * heads + h, q_tokens)
        position = gl.load(index_ptr + position, mask=inside, other=0).to(gl.int32)
    out_at = out_ptr + b * out_stride_b + h * out_stride_h + position.to(gl.int64) * out_stride
    d = gl.arange(0, D, gl.SliceLayout(0, layout))[None, :]
    gl.store(out_at[:, None] + d, (o * inverse[:, None]).to(dtype), mask=inside[:, None])
