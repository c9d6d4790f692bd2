"""The two products of a KV tile, which tensor cores compute while a warpgroup goes on."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, warpgroup_mma


@gluon.jit
def issue_qk(q, k_smem, k_full, tile, STAGES: gl.constexpr, layout: gl.constexpr):
    """Start S = Q K^T for a KV tile: in float32, or of INT8 in int32."""
    mbarrier.wait(k_full.index(tile % STAGES), (tile // STAGES) & 1)
    # cp.async writes through the generic proxy, warpgroup_mma reads through the async one.
    fence_async_shared()
    M: gl.constexpr = q.shape[0]
    TILE_N: gl.constexpr = k_smem.shape[1]
    ROOM: gl.constexpr = k_smem.shape[0] // STAGES
    zero = gl.zeros([M, TILE_N], gl.int32 if q.dtype == gl.int8 else gl.float32, layout)
    k = k_smem.index(tile % STAGES * ROOM).permute((1, 0))
    return warpgroup_mma(q, k, zero, use_acc=False, is_async=True)


@gluon.jit
def issue_pv(p, v_smem, v_full, o, tile, STAGES: gl.constexpr):
    """Start O += P V for a KV tile."""
    mbarrier.wait(v_full.index(tile % STAGES), (tile // STAGES) & 1)
    fence_async_shared()
    return warpgroup_mma(p, v_smem.index(tile % STAGES), o, is_async=True)
