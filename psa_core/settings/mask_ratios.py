"""``mask_ratios``: the share of every pyramid level, as intervals or as upper bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError
from .validation import FrozenMap, share

DEFAULT_MASK_RATIOS = {1: (0.0, 0.4), 2: (0.4, 0.5), 4: (0.5, 0.6), 8: (0.6, 0.8), 0: (0.8, 1.0)}

_TOLERANCE = 1e-6
# Digits of a bound between two: fewer than floats have, so that a graph's settings read well.
_DIGITS = 6


def read_mask_ratios(ratios: Any, block_n: int, key: str = "mask_ratios") -> FrozenMap:
    """Validate ``mask_ratios`` and return it in pyramid order with levels as ints and bounds as floats.

    Args:
        block_n: keys a key block, which is the coarsest level there may be.
        key: what errors call it.

    Raises:
        ConfigError: the intervals do not tile [0, 1] in pyramid order, or a level is not allowed.
    """
    if not isinstance(ratios, Mapping) or not ratios:
        raise ConfigError(key, ratios, "must map pyramid levels to intervals, such as {1: [0, 0.4], 0: [0.4, 1]}")
    intervals = _intervals(ratios, block_n, key)
    ordered = sorted(intervals, key=pyramid_order)
    end = 0.0
    for level in ordered:
        lo, hi = intervals[level]
        if abs(lo - end) > _TOLERANCE:
            raise ConfigError(
                f"{key}.{level}",
                [lo, hi],
                f"must start at {end:g}, where the finer level ends: intervals tile [0, 1] in the order 1, 2, 4 ... 0",
            )
        if hi < lo:
            raise ConfigError(f"{key}.{level}", [lo, hi], "the upper bound must not be below the lower one")
        end = hi
    if abs(end - 1.0) > _TOLERANCE:
        raise ConfigError(f"{key}.{ordered[-1]}", list(intervals[ordered[-1]]), "the last interval must end at 1.0")
    return FrozenMap({level: intervals[level] for level in ordered})


def _intervals(ratios: Mapping[Any, Any], block_n: int, key: str) -> dict[int, tuple[float, float]]:
    allowed = allowed_levels(block_n)
    intervals: dict[int, tuple[float, float]] = {}
    for name, interval in ratios.items():
        # JSON has text keys only; a graph or a sidecar file that went through it is the same setting.
        level = int(name) if isinstance(name, str) and name.isdecimal() else name
        if type(level) is not int or level not in allowed:
            raise ConfigError(
                key, name, f"a level must be one of {', '.join(map(str, allowed))} (block_n is {block_n})"
            )
        if level in intervals:
            raise ConfigError(key, name, f"level {level} is given twice")
        if not isinstance(interval, Sequence) or isinstance(interval, str) or len(interval) != 2:
            raise ConfigError(f"{key}.{level}", interval, "must be an interval [lo, hi]")
        lo, hi = (share(f"{key}.{level}", bound) for bound in interval)
        intervals[level] = (lo, hi)
    return intervals


def mask_ratios_from_bounds(bounds: Mapping[int, float], key: str = "mask_ratios.{}") -> dict[int, tuple[float, float]]:
    """``mask_ratios`` from the upper bound of each level; what lies above the last bound is skipped.

    Args:
        bounds: level -> upper bound from 0 to 1; 0 leaves the level out.
        key: what errors call a bound, with ``{}`` for its level.

    Raises:
        ConfigError: a bound lies below that of a finer level.
    """
    ratios: dict[int, tuple[float, float]] = {}
    end = 0.0
    for level in sorted(bounds):
        bound = bounds[level]
        if bound == 0:
            continue
        if bound < end:
            allowed = f"must not be below the finer level's bound {end:g} (0 leaves it out)"
            raise ConfigError(key.format(level), bound, allowed)
        ratios[level] = (end, bound)
        end = bound
    return ratios | {0: (end, 1.0)}


def bounds_from_mask_ratios(ratios: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """The inverse of :func:`mask_ratios_from_bounds`: the upper bound of each level, skipped (0) left out."""
    return {level: hi for level, (_, hi) in ratios.items() if level}


def blend_mask_ratios(
    start: Mapping[int, tuple[float, float]], end: Mapping[int, tuple[float, float]], progress: float
) -> dict[int, tuple[float, float]]:
    """``mask_ratios`` between two: every bound moves in a straight line.

    A level that only one of them has starts, or ends, as an empty interval.

    Args:
        start, end: both valid.
        progress: from 0 (``start``) to 1 (``end``).
    """
    ratios: dict[int, tuple[float, float]] = {}
    lo = 0.0
    for level in sorted((start.keys() | end.keys()) - {0}):
        first, last = _upper_bound(start, level), _upper_bound(end, level)
        hi = round(first + (last - first) * progress, _DIGITS)
        ratios[level] = (lo, hi)
        lo = hi
    return ratios | {0: (lo, 1.0)}


def _upper_bound(ratios: Mapping[int, tuple[float, float]], level: int) -> float:
    return max((hi for x, (_, hi) in ratios.items() if 0 < x <= level), default=0.0)


def level_at(ratios: Mapping[int, tuple[float, float]], progress: float) -> int:
    """The level whose interval holds ``progress``, from 0 up to 1 exclusive."""
    found = (level for level, (lo, hi) in ratios.items() if lo <= progress < hi)
    return next(found, 1)


def quota_density(ratios: Mapping[int, tuple[float, float]]) -> float:
    """Density when the intervals are shares of a row's blocks (``topk``); with ``thresholdbound`` a first guess."""
    return sum((hi - lo) / level for level, (lo, hi) in ratios.items() if level)


def pyramid_order(level: int) -> float:
    """Sort key that puts levels in pyramid order: 1, 2, 4 ... and skipped (0) last."""
    return level or math.inf


def allowed_levels(block_n: int) -> tuple[int, ...]:
    """The levels that key blocks of ``block_n`` keys can take, in pyramid order: 1, 2, 4 ... block_n, 0."""
    return (*(1 << i for i in range(block_n.bit_length())), 0)
