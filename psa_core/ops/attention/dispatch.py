"""Which attention kernel runs: the one for Hopper where it can, the portable one everywhere else."""

from __future__ import annotations

import torch

from ..backends import hopper_refusal
from ..block_list.build import BlockList
from ..kernel_table import HOPPER
from ..pyramid.rows import Pyramid
from .triton import pyramid_attention_triton


def pyramid_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    pyramid: Pyramid,
    block_m: int,
    block_n: int,
    index: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each query block over the rows it keeps; arguments as of :func:`pyramid_attention_triton`."""
    if block_m in HOPPER.block_m and hopper_refusal(q.device, q.dtype, q.shape[-1]) is None:
        from .hopper import pyramid_attention_hopper

        return pyramid_attention_hopper(q, k, v, block_list, pyramid, block_n, index)
    return pyramid_attention_triton(q, k, v, block_list, pyramid, block_m, block_n, index)
