"""What ``mask_ratios`` mean for a row of so many blocks."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...settings.config import PSAConfig

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


def level_bounds(config: PSAConfig, k_blocks: int) -> LevelBounds:
    """What ``mask_ratios``, ``mask_mode`` and ``min_full_ratio`` mean for rows of ``k_blocks`` blocks."""
    used = {level: hi for level, (lo, hi) in config.mask_ratios.items() if hi > lo}
    bounds = tuple(used.values())[:-1]
    if config.mask_mode == "topk":
        return LevelBounds(tuple(used), tuple(math.ceil(hi * k_blocks - _FUZZ) for hi in bounds), 0)
    return LevelBounds(tuple(used), bounds, math.ceil(config.min_full_ratio * k_blocks - _FUZZ))
