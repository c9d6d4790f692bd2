"""The pyramid: keys and values mean-pooled by 2, 4, 8 ... up to the block size."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..reorder.orders import Orders


class Pyramid(NamedTuple):
    """Pooled rows of one tensor pair, level after level: those of level 2 first, then 4, and so on.

    Row j of level r is the mean of tokens ``r * j .. r * j + r - 1`` that exist; it stands for
    ``min(r, L - r * j)`` tokens and its logit gets the logarithm of that.

    Attributes:
        k, v: ``[B, H, rows, D]``, contiguous, in the dtype of the keys and values.
        max_level: the coarsest level that is there.
    """

    k: torch.Tensor
    v: torch.Tensor
    max_level: int


def rows_of_levels(tokens: int, max_level: int) -> int:
    """How many rows the levels 2, 4 ... ``max_level`` have."""
    return sum(math.ceil(tokens / (1 << i)) for i in range(1, max_level.bit_length()))


def build_pyramid(
    k: torch.Tensor,
    v: torch.Tensor,
    max_level: int,
    backend: str = "torch",
    orders: Orders | None = None,
    read: torch.Tensor | None = None,
) -> Pyramid:
    """Pool keys and values (arXiv 2512.04025, section 3.2).

    Adds less than one more copy of k and v; ``"torch"`` for the time of the call half a copy of one in float32, too.

    Args:
        k, v: ``[B, H, L, D]``, any strides.
        max_level: a power of two up to 128; every level from 2 up to it is built. 1 builds none.
        backend: ``"triton"`` or ``"torch"``.
        orders: the pyramid is that of the tokens of each head in its order, without a copy of them. None for the order
            they have; ``"torch"`` takes no other.
        read: uint8 ``[B, H]``, zero for heads whose rows nobody will read: they may hold anything. None for none.
    """
    if backend == "triton" and max_level > 1:
        from .triton import pool_triton

        return Pyramid(*pool_triton(k, v, max_level, orders, read), max_level)
    assert orders is None or max_level == 1, "torch pools tokens in the order they have"
    return Pyramid(_pool(k, max_level), _pool(v, max_level), max_level)


def _pool(x: torch.Tensor, max_level: int) -> torch.Tensor:
    length = x.shape[2]
    levels = []
    sums, level = x, 1
    while level < max_level:
        # Sums, not means, carry over to the next level: a ragged last group then needs no weights.
        sums = _pair_sums(sums)
        level *= 2
        count = (length - level * torch.arange(sums.shape[2], device=x.device)).clamp(max=level)
        levels.append((sums / count[:, None]).to(x.dtype))
    # Keys whose innermost dimension is the heads would pass that layout on to the rows.
    return torch.cat(levels, 2).contiguous() if levels else x.new_empty((*x.shape[:2], 0, x.shape[3]))


def _pair_sums(x: torch.Tensor) -> torch.Tensor:
    """Sums of neighbours along dimension 2, in float32 or wider; an odd last row stands alone."""
    wide = torch.promote_types(x.dtype, torch.float32)
    even, odd = x[:, :, ::2], x[:, :, 1::2]
    sums = even.to(wide, copy=True)
    sums[:, :, : odd.shape[2]] += odd
    return sums
