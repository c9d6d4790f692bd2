"""Where levels end in a ranking of blocks: for all heads by ``mask_ratios``, or for each head by quotas of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from ...settings.config import PSAConfig
from ...settings.mask_ratios import pyramid_order
from ..causal import Causal, visible_blocks
from ..device_cache import device_cache

# Guards quotas such as ceil(0.07 * 100) against the last bit of a product.
_FUZZ = 1e-9


class LevelBounds(NamedTuple):
    """Where levels end in the ranking of a row's blocks.

    Attributes:
        levels: the levels in use, finest first.
        bounds: one less: level ``i`` ends before the block that has ``bounds[i]`` ranked before it: that many blocks
            (``topk``), or that much importance (``thresholdbound``).
        full_quota: blocks that stay at level 1 whatever the bounds say.
    """

    levels: tuple[int, ...]
    bounds: tuple[float, ...]
    full_quota: int


class RowBounds(NamedTuple):
    """The same for the rows of a map, on the device; one row stands for all where they have as many blocks.

    Attributes:
        levels: as there.
        bounds: ``[rows | 1, len(levels) - 1]``, int32 (``topk``) or float32 (``thresholdbound``).
        full_quota: int32 ``[rows | 1]``.
    """

    levels: tuple[int, ...]
    bounds: torch.Tensor
    full_quota: torch.Tensor


class Quotas(NamedTuple):
    """How many blocks of a row each level takes, for each head.

    Attributes:
        levels: the levels in use, finest first.
        bounds: int32 ``[B, H, q_blocks | 1, len(levels) - 1]`` on the device, ascending from 0 to ``k_blocks``: level
            ``i`` of a head ends before the block of a row that has ``bounds[b, h, row, i]`` ranked before it. A level
            that ends where the one before it does takes no blocks of that head.
    """

    levels: tuple[int, ...]
    bounds: torch.Tensor


def level_bounds(config: PSAConfig, k_blocks: int) -> LevelBounds:
    """What ``mask_ratios``, ``mask_mode`` and ``min_full_ratio`` mean for rows of ``k_blocks`` blocks."""
    used = {level: hi for level, (lo, hi) in config.mask_ratios.items() if hi > lo}
    levels = tuple(used)
    if config.mask_mode == "topk":
        return LevelBounds(levels, quota_bounds(config.mask_ratios, levels, k_blocks), 0)
    return LevelBounds(levels, tuple(used.values())[:-1], math.ceil(config.min_full_ratio * k_blocks - _FUZZ))


@device_cache(maxsize=64)
def row_bounds(
    config: PSAConfig,
    k_blocks: int,
    device: torch.device,
    causal: Causal | None = None,
    blocks: tuple[int, ...] | None = None,
) -> RowBounds:
    """What the config means for each row of a map.

    Args:
        k_blocks: blocks of a row that is not causal.
        causal: each row has the blocks that its queries see, its own ones among them.
        blocks: which query blocks the rows are then; None for all.
    """
    levels, shared, _ = level_bounds(config, k_blocks)
    seen = (k_blocks,) if causal is None else visible_blocks(causal, blocks)
    if config.mask_mode == "topk":
        bounds = bounds_at(quota_ends(config.mask_ratios, levels), seen)
        full_quota = torch.zeros(len(seen), dtype=torch.int32)
    else:
        bounds = torch.tensor([shared], dtype=torch.float32)
        full_quota = bounds_at((config.min_full_ratio,), seen)[:, 0]
    return RowBounds(levels, bounds.to(device), full_quota.to(device))


def quota_bounds(
    mask_ratios: Mapping[int, tuple[float, float]], levels: tuple[int, ...], k_blocks: int
) -> tuple[int, ...]:
    """A head's row of :class:`Quotas`, from ``mask_ratios`` that are shares of a row's ``k_blocks`` blocks.

    Args:
        levels: as in :func:`quota_ends`.
    """
    return tuple(math.ceil(end * k_blocks - _FUZZ) for end in quota_ends(mask_ratios, levels))


def quota_ends(mask_ratios: Mapping[int, tuple[float, float]], levels: tuple[int, ...]) -> tuple[float, ...]:
    """Where all levels but the last end, as shares of a row's blocks.

    Args:
        levels: finest first: those that the ratios use, and any others, which take no blocks.
    """
    return tuple(
        max((hi for level, (_, hi) in mask_ratios.items() if pyramid_order(level) <= pyramid_order(last)), default=0.0)
        for last in levels[:-1]
    )


def bounds_at(ends: Sequence[float] | Sequence[Sequence[float]], blocks: tuple[int, ...]) -> torch.Tensor:
    """Ends that are shares, ``[..., n]``, in rows of so many blocks: int32 ``[..., len(blocks), n]``."""
    # Float32 would round some of them up to the next block.
    shares, rows = (torch.tensor(x, dtype=torch.float64) for x in (ends, blocks))
    return (shares[..., None, :] * rows[:, None] - _FUZZ).ceil().int()
