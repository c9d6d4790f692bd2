"""Level 1 of a packed pyramid: KV tiles whose keys are in INT8, and their softmax.

A KV tile is a packed tile of ``TILE_N`` tokens, a whole key block. It takes a stage of the tiles of 16-bit rows, of
which its keys fill half.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, warpgroup_mma_wait

from ...block_list.triton import TOKEN_BITS
from ...int8 import naive
from .kv_tiles import copy_async
from .products import issue_pv, issue_qk

INT8_TOP = gl.constexpr(naive.INT8_TOP)
# Its name from Triton 3.9 on, and before.
_reinterpret = getattr(gl.shared_memory_descriptor, "reinterpret", None) or gl.shared_memory_descriptor._reinterpret


@gluon.jit
def packed_stages(k_smem, v_smem):
    """The stages of K and V as they hold packed tiles; of K every second one is in use."""
    STAGES: gl.constexpr = k_smem.shape[0]
    TILE_N: gl.constexpr = k_smem.shape[1]
    D: gl.constexpr = k_smem.shape[2]
    k_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([TILE_N, D], gl.int8)
    k8_smem = _reinterpret(k_smem, gl.int8, [2 * STAGES, TILE_N, D], k_layout)
    return k8_smem, _reinterpret(v_smem, gl.float16, [STAGES, TILE_N, D], v_smem.layout)


@gluon.jit
def locate_packed(spans_ptr, head, k_tokens, TILE_N: gl.constexpr):
    """Rows of level 1 that a query block keeps, the KV tiles that they are, and the first tile of the head's keys."""
    n_rows = gl.load(spans_ptr) >> TOKEN_BITS
    first_tile = head.to(gl.int32) * ((k_tokens + TILE_N - 1) // TILE_N)
    return n_rows, (n_rows + TILE_N - 1) // TILE_N, first_tile


@gluon.jit
def copy_packed(smem, barriers, packed, first_tile, blocks_ptr, kv_count, n_tiles, STAGES: gl.constexpr):
    """Copy the listed blocks of level 1 of a work tile."""
    work_smem, q_smem, k_smem, v_smem = smem
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    packed_k_ptr, k_scale_ptr, center_ptr, packed_v_ptr, v_max_ptr = packed
    k8_smem, v16_smem = packed_stages(k_smem, v_smem)
    TILE: gl.constexpr = k_smem.shape[1] * k_smem.shape[2]
    block = gl.load(blocks_ptr, mask=n_tiles > 0, other=0)
    for i in range(n_tiles):
        at = (first_tile + block).to(gl.int64) * TILE
        # Looked up a tile ahead, so that no copy waits for its address.
        block = gl.load(blocks_ptr + i + 1, mask=i + 1 < n_tiles, other=0)
        stage = (kv_count + i) % STAGES
        phase = (((kv_count + i) // STAGES) & 1) ^ 1
        mbarrier.wait(k_empty.index(stage), phase)
        _copy_tile(k8_smem.index(2 * stage), packed_k_ptr + at)
        async_copy.mbarrier_arrive(k_full.index(stage), increment_count=False)
        mbarrier.wait(v_empty.index(stage), phase)
        _copy_tile(v16_smem.index(stage), packed_v_ptr + at)
        async_copy.mbarrier_arrive(v_full.index(stage), increment_count=False)


@gluon.jit
def _copy_tile(smem, at):
    """Copy a packed tile, which is contiguous, 16 bytes a thread."""
    ROWS: gl.constexpr = smem.shape[0]
    D: gl.constexpr = smem.shape[1]
    WIDTH: gl.constexpr = 128 // smem.dtype.primitive_bitwidth
    layout: gl.constexpr = gl.BlockedLayout([1, WIDTH], [32 * WIDTH // D, D // WIDTH], [gl.num_warps(), 1], [1, 0])
    row = gl.arange(0, ROWS, gl.SliceLayout(1, layout))[:, None]
    copy_async(smem, at + (row * D + gl.arange(0, D, gl.SliceLayout(0, layout))[None, :]))


@gluon.jit
def attend_packed(
    o, row_max, row_sum, q, q8, scale, packed, smem, barriers, head, first_tile, blocks_ptr, n_rows, kv_count, n_tiles,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Online softmax over level 1 of a work tile, of ``n_tiles`` KV tiles, more than none, before any other level.

    Args:
        q, q8: the queries, and room for them in INT8.
        o, row_max, row_sum: of nothing yet; of that level afterwards.
    """
    work_smem, q_smem, k_smem, v_smem = smem
    q_full, q_empty, k_full, k_empty, v_full, v_empty = barriers
    packed_k_ptr, k_scale_ptr, center_ptr, packed_v_ptr, v_max_ptr = packed
    TILE_N: gl.constexpr = k_smem.shape[1]
    D: gl.constexpr = k_smem.shape[2]
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE_N, 32])
    per_row: gl.constexpr = gl.SliceLayout(1, s_layout)
    rows_layout: gl.constexpr = row_max.type.layout
    o_layout: gl.constexpr = o.type.layout
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    k8_smem, v16_smem = packed_stages(k_smem, v_smem)
    q_scale, of_center = _queries_in_int8(q, q8, center_ptr + head * D, per_row)
    q_scale *= scale
    row_max, row_sum = gl.convert_layout(row_max, per_row), gl.convert_layout(row_sum, per_row)

    # Scales are looked up a tile ahead and their blocks two, so that no softmax waits for them.
    k_scale_ptr += first_tile
    logit = q_scale * gl.load(k_scale_ptr + gl.load(blocks_ptr))
    k_scale = gl.load(k_scale_ptr + gl.load(blocks_ptr + 1, mask=n_tiles > 1, other=0))
    block = gl.load(blocks_ptr + 2, mask=n_tiles > 2, other=0)
    s_token = issue_qk(q8, k8_smem, k_full, kv_count, STAGES, s_layout)
    s = warpgroup_mma_wait(0, deps=[s_token])
    mbarrier.arrive(k_empty.index(kv_count % STAGES))
    p, rescale, row_max, row_sum = _softmax(s, row_max, row_sum, logit, n_rows)
    p_operand = gl.convert_layout(p.to(gl.float16), p_layout)
    for i in range(1, n_tiles):
        tile = kv_count + i
        # The softmax of this tile runs while the tensor cores multiply P and V of the one before.
        s_token = issue_qk(q8, k8_smem, k_full, tile, STAGES, s_layout)
        o_token = issue_pv(p_operand, v16_smem, v_full, o, tile - 1, STAGES)
        logit = q_scale * k_scale
        k_scale = gl.load(k_scale_ptr + block)
        block = gl.load(blocks_ptr + i + 2, mask=i + 2 < n_tiles, other=0)
        s = warpgroup_mma_wait(1, deps=[s_token])
        mbarrier.arrive(k_empty.index(tile % STAGES))
        p, rescale, row_max, row_sum = _softmax(s, row_max, row_sum, logit, n_rows - i * TILE_N)
        o, p_operand = warpgroup_mma_wait(0, deps=[o_token, p_operand])
        mbarrier.arrive(v_empty.index((tile - 1) % STAGES))
        o = o * gl.convert_layout(rescale, gl.SliceLayout(1, o_layout))[:, None]
        p_operand = gl.convert_layout(p.to(gl.float16), p_layout)
    last = kv_count + n_tiles - 1
    o_token = issue_pv(p_operand, v16_smem, v_full, o, last, STAGES)
    o = warpgroup_mma_wait(0, deps=[o_token])
    mbarrier.arrive(v_empty.index(last % STAGES))
    # Packed values are shares of the largest of their channel, and packed keys lack the center.
    o *= gl.load(v_max_ptr + head * D + gl.arange(0, D, gl.SliceLayout(0, o_layout)))[None, :]
    row_max += of_center * scale
    return o, gl.convert_layout(row_max, rows_layout), gl.convert_layout(row_sum, rows_layout)


@gluon.jit
def _queries_in_int8(q, q8, center_ptr, layout: gl.constexpr):
    """Round the queries of a warpgroup to INT8, into ``q8``.

    Returns:
        What a step of each query stands for, and its product with the center of the keys, float32 ``[64]``.
    """
    D: gl.constexpr = q.shape[1]
    rows: gl.constexpr = gl.BlockedLayout([1, 16], [32 * 16 // D, D // 16], [gl.num_warps(), 1], [1, 0])
    x = q.load(rows).to(gl.float32)
    # As integers magnitudes compare like the numbers, and NaN is above them all.
    largest = gl.max(x.to(gl.int32, bitcast=True) & 0x7FFFFFFF, 1).to(gl.float32, bitcast=True)
    factor = gl.where(largest > 0, INT8_TOP / largest, 0.0)
    q8.store(gl.floor(x * factor[:, None] + 0.5).to(gl.int8))
    fence_async_shared()
    center = gl.load(center_ptr + gl.arange(0, D, gl.SliceLayout(0, rows)))
    of_center = gl.sum(x * center[None, :], 1)
    return gl.convert_layout(largest / INT8_TOP, layout), gl.convert_layout(of_center, layout)


@gluon.jit
def _softmax(s, row_max, row_sum, scale, n_rows):
    """One step of the online softmax in base 2 over the first ``n_rows`` of a tile, the others of which repeat one.

    Args:
        s: int32; ``scale`` makes it a logit.

    Returns:
        P, the factor by which O is to be rescaled, and the new ``row_max`` and ``row_sum``.
    """
    TILE_N: gl.constexpr = s.shape[1]
    new_max = gl.maximum(row_max, gl.max(s, 1).to(gl.float32) * scale)
    p = gl.exp2(s.to(gl.float32) * scale[:, None] - new_max[:, None])
    if n_rows < TILE_N:
        # A product rather than gl.where, for which compilers do not branch: every tile would pay for it.
        slot = gl.arange(0, TILE_N, gl.SliceLayout(0, s.type.layout))
        p *= gl.minimum(gl.maximum((n_rows - slot).to(gl.float32), 0.0), 1.0)[None, :]
    rescale = gl.exp2(row_max - new_max)
    row_sum = row_sum * rescale + gl.sum(p, 1)
    return p, rescale, new_max, row_sum
