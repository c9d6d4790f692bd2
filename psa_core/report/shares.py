"""Shares of block pairs by level, finest first, the rest skipped: what calls report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import fsum

# Shares are summed in float32, on millions of block pairs.
_ROUNDED = 1e-6


def density_of(shares: Sequence[float]) -> float:
    """Share of dense attention's FLOPs."""
    return sum(share / (1 << i) for i, share in enumerate(shares))


def mean_shares(calls: Sequence[Sequence[float]]) -> dict[int, float]:
    """Means by level of what calls have, to which levels that a call did not use count as 0."""
    if not calls:
        return {}
    means = [fsum(shares) / len(calls) for shares in zip_longest(*calls, fillvalue=0.0)]
    skipped = 1.0 - fsum(means)
    return {**{1 << i: share for i, share in enumerate(means)}, 0: skipped if skipped > _ROUNDED else 0.0}


def by_name(shares: dict[int, float]) -> dict[str, float]:
    """Levels as JSON has them."""
    return {str(level) if level else "skipped": share for level, share in shares.items()}
