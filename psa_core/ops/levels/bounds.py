"""Where levels end in a ranking of blocks: for all heads by ``mask_ratios``, or for each head by quotas of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from ...settings.config import PSAConfig
from ...settings.mask_ratios import pyramid_order

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


class Quotas(NamedTuple):
    """How many blocks of a row each level takes, for each head.

    Attributes:
        levels: the levels in use, finest first.
        bounds: int32 ``[B, H, len(levels) - 1]`` on the device, ascending from 0 to ``k_blocks``: level ``i`` of a head
            ends before the block that has ``bounds[b, h, i]`` ranked before it. A level that ends where the one
            before it does takes no blocks of that head.
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


def quota_bounds(
    mask_ratios: Mapping[int, tuple[float, float]], levels: tuple[int, ...], k_blocks: int
) -> tuple[int, ...]:
    """A head's row of :class:`Quotas`, from ``mask_ratios`` that are shares of a row's ``k_blocks`` blocks.

    Args:
        levels: finest first: those that the ratios use, and any others, which take no blocks.
    """
    ends = (
        max((hi for level, (_, hi) in mask_ratios.items() if pyramid_order(level) <= pyramid_order(last)), default=0.0)
        for last in levels[:-1]
    )
    return tuple(math.ceil(end * k_blocks - _FUZZ) for end in ends)
