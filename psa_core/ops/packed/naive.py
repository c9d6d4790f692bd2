"""Packing from its definition (SageAttention, arXiv 2410.02367, sections 4.2 and 4.3). The oracle of this folder."""

from __future__ import annotations

import torch

from .rows import INT8_TOP, VALUE_TOP, Packed


def pack_naive(
    k: torch.Tensor, v: torch.Tensor, center: torch.Tensor, block_n: int, tile: int, dtype: torch.dtype
) -> Packed:
    """Pack tokens that lie in order.

    Args:
        k, v: ``[B, H, L, D]``.
        center: float32 ``[B, H, D]``; which vector it is changes no logit's distance from another.
        block_n, tile, dtype: as of :func:`~.triton.pack_triton`.
    """
    length = k.shape[2]
    place = torch.arange(-(-length // block_n) * block_n, device=k.device).clamp(max=length - 1)
    k, v = (x.float()[:, :, place].unflatten(2, (-1, tile)) for x in (k, v))
    k = k - center[:, :, None, None]
    k_scale = k.abs().amax((-2, -1)) / INT8_TOP
    v_max = v.abs().amax((2, 3))
    k = _round(k / _nonzero(k_scale)[..., None, None]).to(torch.int8)
    v = (v / _nonzero(v_max)[:, :, None, None] * VALUE_TOP[dtype]).to(dtype)
    if dtype == torch.float8_e4m3fn:
        v = v.mT.unflatten(-1, (-1, 2, 4, 2)).transpose(-3, -2).flatten(-4)
    return Packed(k, k_scale, center, v, v_max, tile)


def quantised_queries(q: torch.Tensor) -> torch.Tensor:
    """Queries as INT8 has them, each by its largest magnitude; float64 like ``[B, H, L, D]``."""
    largest = q.float().abs().amax(-1, keepdim=True)
    # In float32, as kernels do: of two steps as near, another one would be another logit.
    steps = _round(q.float() * (INT8_TOP / _nonzero(largest)))
    return steps.double() * largest.double() / INT8_TOP


def _round(x: torch.Tensor) -> torch.Tensor:
    return (x + 0.5).floor()


def _nonzero(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, 1.0)
