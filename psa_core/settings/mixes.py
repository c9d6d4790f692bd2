"""Mixes: how a density is spent on pyramid levels, as ``mask_ratios`` of mode ``topk``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Ratios = dict[int, tuple[float, float]]


def _level_1(density: float, block_n: int) -> Ratios:
    return {1: (0.0, density), 0: (density, 1.0)}


def _pyramid(density: float, block_n: int) -> Ratios:
    """Levels 1, 2 and 8 as 10 : 5 : 20, which cost 10 + 5 / 2 + 20 / 8 = 15 parts; what is left is skipped.

    From the density on that leaves nothing, levels 2 and 8 share what level 1 leaves, still as 5 : 20, at a fifth of
    its cost.
    """
    part = density / 15
    if 35 * part < 1:
        return {1: (0.0, 10 * part), 2: (10 * part, 15 * part), 8: (15 * part, 35 * part), 0: (35 * part, 1.0)}
    full = (density - 0.2) / 0.8
    half = full + (1 - full) / 5
    return {1: (0.0, full), 2: (full, half), 8: (half, 1.0)}


def _tail(density: float, block_n: int) -> Ratios:
    """One row for every block that is not at level 1, and the rest of the density for level 1."""
    row = 1 / block_n
    full = max((density - row) / (1 - row), 0.0)
    return {1: (0.0, full), block_n: (full, 1.0)}


# Density, block_n -> quotas.
MIX_RATIOS: Mapping[str, Callable[[float, int], Ratios]] = {"level 1": _level_1, "pyramid": _pyramid, "tail": _tail}


def levels_of_mixes(block_n: int) -> set[int]:
    """The levels that some mix uses, with skipped (0)."""
    return {level for ratios in MIX_RATIOS.values() for level in ratios(0.1, block_n)}
