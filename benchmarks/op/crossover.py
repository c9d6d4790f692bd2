"""From which length on sparse attention is faster than dense: where ``min_tokens`` comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from psa_core.apps.bench.results import PSA, Row

from .cases import LENGTH_PART


class Crossover(NamedTuple):
    """The smallest length measured from which on PSA stays faster than dense; None when it is not at the longest."""

    heads: int
    head_dim: int
    importance: str
    density: float
    tokens: int | None


def crossover(points: Iterable[tuple[int, float]]) -> int | None:
    """The smallest length from which on every ratio is above 1.

    Args:
        points: (tokens, dense time by PSA's), in any order.
    """
    found = None
    for tokens, ratio in sorted(points, reverse=True):
        if not ratio > 1.0:
            break
        found = tokens
    return found


def crossovers(rows: Iterable[Row]) -> list[Crossover]:
    """Of every head size, estimator and density in the sweep of length."""
    sweeps: dict[tuple[int, int, str, float], list[tuple[int, float]]] = {}
    for row in rows:
        if row.part == LENGTH_PART and row.attention == PSA and row.ratio and row.importance and row.density:
            key = (row.heads, row.head_dim, row.importance, row.density)
            sweeps.setdefault(key, []).append((row.tokens, row.ratio))
    return [Crossover(*key, crossover(points)) for key, points in sweeps.items()]
