"""Packing from its definition (SageAttention, arXiv 2410.02367, sections 4.2 and 4.3). The oracle of this folder."""

from __future__ import annotations

import torch

from ..int8.naive import in_int8
from ..pyramid.naive import pooled_rows
from .rows import VALUE_TOP, Packed, PackedRows


def pack_naive(
    k: torch.Tensor,
    v: torch.Tensor,
    center: torch.Tensor,
    block_n: int,
    tile: int,
    dtype: torch.dtype,
    max_level: int = 1,
) -> Packed:
    """Pack tokens that lie in order.

    Args:
        k, v: ``[B, H, L, D]``.
        center: float32 ``[B, H, D]``; which vector it is changes no logit's distance from another.
        block_n, tile, dtype, max_level: as of :func:`~.triton.pack_triton`.
    """
    length = k.shape[2]
    k = k.float() - center[:, :, None]
    v_max = v.float().abs().amax(2)
    v = v.float() / torch.where(v_max > 0, v_max, 1.0)[:, :, None]
    place = torch.arange(-(-length // block_n) * block_n, device=k.device).clamp(max=length - 1)
    tiles, tiles_v = (x[:, :, place].unflatten(2, (-1, tile)) for x in (k, v))
    steps, k_scale = in_int8(tiles, (-2, -1))
    tiles_v = (tiles_v * VALUE_TOP[dtype]).to(dtype)
    if dtype == torch.float8_e4m3fn:
        tiles_v = tiles_v.mT.unflatten(-1, (-1, 2, 4, 2)).transpose(-3, -2).flatten(-4)
    return Packed(steps, k_scale[..., 0, 0], center, tiles_v, v_max, _pack_pooled(k, v, max_level), tile)


def _pack_pooled(k: torch.Tensor, v: torch.Tensor, max_level: int) -> PackedRows:
    levels = [1 << i for i in range(1, max_level.bit_length())]
    k, v = (torch.cat([x[:, :, :0], *(pooled_rows(x, level)[0] for level in levels)], 2) for x in (k, v))
    steps, k_scale = in_int8(k)
    return PackedRows(steps, k_scale[..., 0], v.half(), max_level)


def quantised_queries(q: torch.Tensor) -> torch.Tensor:
    """Queries as INT8 has them, each by its largest magnitude; float64 like ``[B, H, L, D]``."""
    steps, scale = in_int8(q)
    return steps.double() * scale.double()
