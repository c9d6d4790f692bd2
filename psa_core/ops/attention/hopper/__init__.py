"""Pyramid attention for Hopper (sm_90) in Gluon: persistent and warp-specialised, after FlashAttention-3.

Words, in the order in which data meet them:

- work tile: one query block (128 queries) of one head. The tile scheduler is an atomic counter in global memory, from
  which every program takes its next work tile, so that query blocks that keep much hold nobody up.
- KV tile: ``tile_n`` rows of keys and values of one pyramid level, gathered from the blocks that the work tile keeps.
- producer: the warpgroup (four warps) that copies Q and KV tiles to shared memory with ``cp.async``, for the next work
  tile while the consumers still finish the last one.
- consumers: two warpgroups, each with 64 of the queries. The softmax of one overlaps its own product P V of the tile
  before, and the products of the other.
- stage, phase: shared memory holds ``stages`` KV tiles, and Q twice. Each stage has two barriers, full (the producer
  has copied) and empty (both consumers have read). The phase to wait for is the parity of the stage's uses so far.
- packed tile: a KV tile of level 1 where keys and values are packed (``psa_core.ops.packed``): its keys in INT8, as
  Q is made for it, its values in float16. It is contiguous, and nothing of it is looked up.
- S, P, O: ``S = Q K^T``, ``P = exp2(S * scale - row_max)``, ``O = P V``. O is rescaled when ``row_max`` rises, and
  divided by ``row_sum`` at the end.

Debugging takes a GPU, as Triton's interpreter does not run Gluon. The portable kernel takes the same arguments, and
``tests/ops/test_gpu.py`` compares both with the oracle. A hang is a barrier whose arrivals do not add up to its count
in ``kernel.py``. ``compute-sanitizer python tests/ops/sanitizer_case.py`` finds stray accesses. Of what ``--tool
racecheck`` says, the four bytes by which Triton's own ``warp_specialize`` wakes its workers are a false alarm; a hazard
in a buffer of ``kernel.py`` is real. Without a GPU, ``tests/support/kernel_resources.py`` shows registers and spills.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton

from ...block_list.build import BlockList
from ...compiling import launcher
from ...current_device import on_device_of_first
from ...grouped import group_of
from ...packed.rows import Packed
from ...pyramid.rows import Pyramid
from ...reorder.orders import Orders, order_tensors
from .kernel import pyramid_attention_kernel
from .kv_tiles import BLOCK_M


class HopperLaunch(NamedTuple):
    """Rows of a KV tile, stages, and registers of a thread of the producer and of the consumers."""

    tile_n: int
    stages: int
    producer_registers: int
    consumer_registers: int


LAUNCHES = {64: HopperLaunch(128, 2, 88, 208), 128: HopperLaunch(128, 2, 120, 192)}
# Over a packed pyramid, whose tiles a producer finds without looking rows up.
INT8_LAUNCHES = {64: HopperLaunch(128, 2, 88, 208), 128: HopperLaunch(128, 2, 96, 208)}


@on_device_of_first
def pyramid_attention_hopper(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    pyramid: Pyramid,
    block_n: int,
    orders: Orders | None = None,
    q_orders: Orders | None = None,
    hidden: torch.Tensor | None = None,
    packed: Packed | None = None,
) -> torch.Tensor:
    """Attention of each block of 128 queries over the rows it keeps.

    Args and result: as in :func:`..triton.pyramid_attention_triton`, with query blocks of 128, in which no number of
    ``hidden`` may be larger than the one before it.

    Args:
        packed: keys and values of level 1 in tiles of 128, the values float16, which are computed in INT8; ``block_n``
            is 128 then, and there is no ``hidden``. Pooled rows are the pyramid's. None for those of k and v.
    """
    batch, heads, q_tokens, d = q.shape
    launch = (LAUNCHES if packed is None else INT8_LAUNCHES)[d]
    assert packed is None or (packed.tile == block_n == launch.tile_n and hidden is None), "tiles are not key blocks"
    # cp.async copies 16 bytes, from aligned addresses.
    q, k, v = (x if x.stride(3) == 1 and _aligned(x) else x.contiguous() for x in (q, k, v))
    # In memory [B, L, H, D], which models reshape to [B, L, H * D] without a copy.
    out = q.new_empty((batch, q_tokens, heads, d)).transpose(1, 2)
    index, q_index = order_tensors(orders, q), order_tensors(q_orders or orders, q)
    group = group_of(q, k)
    assert orders is None or group == 1, "heads that share keys have no order of their own"
    blocks, spans, order = block_list.expand(batch, heads)
    counter = torch.zeros(1, dtype=torch.int32, device=q.device)
    n_work_tiles = triton.cdiv(q_tokens, BLOCK_M.value) * heads * batch
    n_programs = min(n_work_tiles, torch.cuda.get_device_properties(q.device).multi_processor_count)
    level_1 = (k, spans, spans, v, spans) if packed is None else packed[:5]
    launcher(pyramid_attention_kernel, (n_programs,))(
        q, k, v, pyramid.k, pyramid.v, out, *q_index, *index, *level_1, blocks, spans,
        spans if order is None else order, spans if hidden is None else hidden, counter,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        *blocks.stride()[:2], *spans.stride()[:2],
        batch, heads, q_tokens, k.shape[2], blocks.shape[3], pyramid.k.shape[2], d**-0.5 * math.log2(math.e),
        D=d, LOG_BLOCK_N=block_n.bit_length() - 1, N_LEVELS=spans.shape[3], TILE_N=launch.tile_n,
        STAGES=launch.stages, REORDER=orders is not None, ORDERED=order is not None, GROUP=group,
        CAUSAL=hidden is not None, PACKED=packed is not None,
        PRODUCER_REGISTERS=launch.producer_registers, CONSUMER_REGISTERS=launch.consumer_registers, num_warps=4,
    )  # fmt: skip
    return out


def _aligned(x: torch.Tensor) -> bool:
    return x.data_ptr() % 16 == 0 and all(stride * x.element_size() % 16 == 0 for stride in x.stride()[:3])
