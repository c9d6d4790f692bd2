"""Pyramid attention for Hopper (sm_90) in Gluon.

Twelve warps share an item of work: one query block of one head. Four of them gather rows of keys and values into shared
memory by asynchronous copies; two groups of four attend, each with 64 of the queries. A group's softmax overlaps its
own product with the values and the other group's products. Items come from a queue, so that query blocks that keep
much hold nobody up, and the rows of the next item are on their way while the last one is finished.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from ...block_list.build import BlockList
from ...pyramid.rows import Pyramid
from .kernel import pyramid_attention_kernel
from .walk import BLOCK_M

LOG2_E = 1.4426950408889634


class HopperLaunch(NamedTuple):
    """Rows of a tile, stages of the ring of tiles, and registers a thread of the loading and the attending warps."""

    tile_n: int
    stages: int
    loader_registers: int
    group_registers: int


LAUNCHES = {64: HopperLaunch(128, 2, 88, 208), 128: HopperLaunch(128, 2, 120, 192)}


def pyramid_attention_hopper(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    pyramid: Pyramid,
    block_n: int,
    index: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each block of 128 queries over the rows it keeps.

    Args and result: as of :func:`..triton.pyramid_attention_triton`, with query blocks of 128.
    """
    batch, heads, q_tokens, d = q.shape
    launch = LAUNCHES[d]
    # Copies are of 16 bytes, from addresses that are multiples of that.
    q, k, v = (x if x.stride(3) == 1 and _aligned(x) else x.contiguous() for x in (q, k, v))
    # Heads inside tokens in memory, as models go on with them.
    out = q.new_empty((batch, q_tokens, heads, d)).transpose(1, 2)
    order = block_list.order if block_list.blocks.shape[:2] == q.shape[:2] else None
    blocks, spans = (x.expand(batch, heads, -1, -1) for x in (block_list.blocks, block_list.spans))
    queue = torch.zeros(1, dtype=torch.int32, device=q.device)
    n_items = triton.cdiv(q_tokens, BLOCK_M.value) * heads * batch
    n_programs = min(n_items, torch.cuda.get_device_properties(q.device).multi_processor_count)
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(q):
        pyramid_attention_kernel[(n_programs,)](
            q, k, v, pyramid.k, pyramid.v, out, q if index is None else index, blocks, spans,
            spans if order is None else order, queue,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
            *blocks.stride()[:2], *spans.stride()[:2],
            batch, heads, q_tokens, k.shape[2], blocks.shape[3], pyramid.k.shape[2], d**-0.5 * LOG2_E,
            D=d, LOG_BLOCK_N=block_n.bit_length() - 1, N_LEVELS=spans.shape[3], TILE_N=launch.tile_n,
            STAGES=launch.stages, REORDER=index is not None, ORDERED=order is not None,
            LOADER_REGISTERS=launch.loader_registers, GROUP_REGISTERS=launch.group_registers, num_warps=4,
        )  # fmt: skip
    return out


def _aligned(x: torch.Tensor) -> bool:
    return x.data_ptr() % 16 == 0 and all(stride * x.element_size() % 16 == 0 for stride in x.stride()[:3])
