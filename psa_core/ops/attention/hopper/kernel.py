"""The kernel for Hopper: shared memory, barriers, and the code of each warpgroup."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

from .consumer import consume
from .producer import WARPGROUP_M, produce


# Sizes change from video to video, and nothing is gained by compiling for each.
@gluon.jit(
    do_not_specialize=[
        "batch", "heads", "q_tokens", "k_tokens", "k_blocks", "pooled_rows",
        "blocks_stride_b", "blocks_stride_h", "spans_stride_b", "spans_stride_h",
    ]
)  # fmt: skip
def pyramid_attention_kernel(
    q_ptr, k_ptr, v_ptr, pooled_k_ptr, pooled_v_ptr, out_ptr, q_index_ptr, q_of_head_ptr, index_ptr, of_head_ptr,
    packed_k_ptr, k_scale_ptr, center_ptr, packed_v_ptr, v_max_ptr,
    blocks_ptr, spans_ptr, order_ptr, hidden_ptr, counter_ptr,
    q_stride_b, q_stride_h, q_stride, k_stride_b, k_stride_h, k_stride, v_stride_b, v_stride_h, v_stride,
    out_stride_b, out_stride_h, out_stride, blocks_stride_b, blocks_stride_h, spans_stride_b, spans_stride_h,
    batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows, scale,
    D: gl.constexpr, LOG_BLOCK_N: gl.constexpr, N_LEVELS: gl.constexpr, TILE_N: gl.constexpr, STAGES: gl.constexpr,
    REORDER: gl.constexpr, ORDERED: gl.constexpr, GROUP: gl.constexpr, CAUSAL: gl.constexpr, PACKED: gl.constexpr,
    PRODUCER_REGISTERS: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):  # fmt: skip
    """One persistent program, of which each multiprocessor runs one.

    With PACKED level 1 is read from packed tiles of TILE_N tokens, and computed in INT8. All other rows are gathered.
    """
    dtype: gl.constexpr = q_ptr.dtype.element_ty
    q_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([WARPGROUP_M, D], dtype)
    row_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([TILE_N, D], dtype)
    one: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    bar: gl.constexpr = mbarrier.MBarrierLayout()
    work_smem = gl.allocate_shared_memory(gl.int32, [2, 1], one)
    q_smem = gl.allocate_shared_memory(dtype, [4, WARPGROUP_M, D], q_layout)
    k_smem = gl.allocate_shared_memory(dtype, [STAGES, TILE_N, D], row_layout)
    v_smem = gl.allocate_shared_memory(dtype, [STAGES, TILE_N, D], row_layout)
    q8_smem = q_smem
    if PACKED:
        q8_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([WARPGROUP_M, D], gl.int8)
        q8_smem = gl.allocate_shared_memory(gl.int8, [2, WARPGROUP_M, D], q8_layout)
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], bar)
    q_empty = gl.allocate_shared_memory(gl.int64, [2, 1], bar)
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    # Full: the producer's 128 threads arrive, each for its copies; for Q one arrival more, for the work tile. Empty:
    # one arrival of each consumer.
    for q_stage in gl.static_range(2):
        mbarrier.init(q_full.index(q_stage), count=129)
        mbarrier.init(q_empty.index(q_stage), count=2)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_full.index(stage), count=128)
        mbarrier.init(v_full.index(stage), count=128)
        mbarrier.init(k_empty.index(stage), count=2)
        mbarrier.init(v_empty.index(stage), count=2)
    fence_async_shared()

    q = (q_ptr, q_stride_b, q_stride_h, q_stride)
    k = (k_ptr, k_stride_b, k_stride_h, k_stride)
    v = (v_ptr, v_stride_b, v_stride_h, v_stride)
    out = (out_ptr, out_stride_b, out_stride_h, out_stride)
    q_orders = (q_index_ptr, q_of_head_ptr)
    orders = (index_ptr, of_head_ptr)
    lists = (blocks_ptr, spans_ptr, blocks_stride_b, blocks_stride_h, spans_stride_b, spans_stride_h)
    sizes = (batch, heads, q_tokens, k_tokens, k_blocks, pooled_rows)
    packed = (packed_k_ptr, k_scale_ptr, center_ptr, packed_v_ptr, v_max_ptr)
    smem = (work_smem, q_smem, k_smem, v_smem)
    barriers = (q_full, q_empty, k_full, k_empty, v_full, v_empty)
    gl.warp_specialize(
        [
            (consume, (gl.constexpr(0), out, packed, q_orders, hidden_ptr, scale, lists, sizes, smem, q8_smem,
                       barriers, D, LOG_BLOCK_N, N_LEVELS, TILE_N, STAGES, REORDER, GROUP, CAUSAL, PACKED)),
            (consume, (gl.constexpr(1), out, packed, q_orders, hidden_ptr, scale, lists, sizes, smem, q8_smem,
                       barriers, D, LOG_BLOCK_N, N_LEVELS, TILE_N, STAGES, REORDER, GROUP, CAUSAL, PACKED)),
            (produce, (q, k, v, pooled_k_ptr, pooled_v_ptr, packed, q_orders, orders, order_ptr, counter_ptr, lists,
                       sizes, smem, barriers, D, LOG_BLOCK_N, N_LEVELS, TILE_N, STAGES, REORDER, ORDERED, GROUP,
                       PACKED)),
        ],
        [4, 4],
        [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )  # fmt: skip
