"""The frontier as short tables, and its targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean

from psa_core.apps.bench.results import WHOLE_OP, Results, Row
from psa_core.apps.bench.rivals import SOL
from psa_core.apps.bench.table import markdown, pivot

from ..op.flex import FLEX
from ..target import Target, target_table
from .heads import SOURCES, SYNTHETIC, TRAINED_LARGE, TRAINED_SMALL, Source
from .ours import (
    BEST_POSSIBLE,
    CALIBRATED,
    CHOOSING,
    FIXED,
    FIXED_BY_CONTENT,
    IN_CALL,
    MAP_STEPS,
    PART,
    PRECISIONS,
    PRESET,
    WITH_SEMANTIC,
    map_name,
    precision_name,
)
from .rivals import SOL_GILBERT

BEST_FIXED = "best fixed recipe"
BEST_BY_CONTENT = f"{BEST_FIXED}, order by content"
_FIXED_BY_PLACE = tuple(name for name in FIXED if name not in FIXED_BY_CONTENT)
KEPT, SEMANTIC_KEPT = (f"{name}, maps kept for {MAP_STEPS} steps" for name in (CALIBRATED, WITH_SEMANTIC))
_QUANTISED = tuple(map(precision_name, PRECISIONS))
_CALIBRATED = (CALIBRATED, IN_CALL, KEPT, *_QUANTISED, WITH_SEMANTIC, SEMANTIC_KEPT)
_SHOWN = (PRESET, BEST_FIXED, BEST_BY_CONTENT, *_CALIBRATED, BEST_POSSIBLE, FLEX, SOL, SOL_GILBERT)


def frontier_tables(results: Results) -> str:
    """For each case error, time and ratio by density; what kept maps and choosing cost; and the targets."""
    rows = with_best_fixed(results.rows)
    texts = [results.caption()]
    for case in dict.fromkeys(row.case for row in rows):
        of_case = [row for row in rows if row.case == case]
        texts += [_errors_and_times(case, of_case), _best_fixed_names(case, of_case), _map_ages(case, of_case)]
    texts += [_choosing(rows), target_table(rows, TARGETS)]
    return "\n\n".join(text for text in texts if text)


def with_best_fixed(rows: Sequence[Row]) -> list[Row]:
    """The rows, and for each case and density more.

    Some are those of the fixed recipe with the least error, in an order that heads choose from by default and in one by
    content, whose clustering costs as much as attention; others are calibrated attention as a run with kept maps has
    it: one call in so many makes a map, and its time and error are the mean over the ages that a map has.
    """
    more = []
    for case, density in _cells(rows):
        for name, among in ((BEST_FIXED, _FIXED_BY_PLACE), (BEST_BY_CONTENT, FIXED_BY_CONTENT)):
            if (best := best_fixed(rows, case, density, among)) is not None:
                more.append(best.replace(attention=name))
        for name, kept_name in ((CALIBRATED, KEPT), (WITH_SEMANTIC, SEMANTIC_KEPT)):
            fresh = find(rows, case, name, density)
            aged = [row for age in range(MAP_STEPS) if (row := find(rows, case, map_name(age, name), density))]
            if fresh is not None and aged:
                more.append(_mean_of_ages(fresh, aged).replace(attention=kept_name))
    return [*rows, *more]


def best_fixed(rows: Sequence[Row], case: str, density: float, among: Sequence[str] = _FIXED_BY_PLACE) -> Row | None:
    """Of some recipes that all heads share, the one of the least error."""
    fixed = [row for name in among if (row := find(rows, case, name, density)) is not None]
    return min(fixed, key=error_of, default=None)


def find(rows: Sequence[Row], case: str, attention: str, density: float | None) -> Row | None:
    """The row of a whole op that took part."""
    found = (x for x in rows if (x.case, x.attention, x.density, x.stage) == (case, attention, density, WHOLE_OP))
    return next((row for row in found if row.error is not None), None)


def error_of(row: Row) -> float:
    """The error of a row that has one."""
    assert row.error is not None
    return row.error


def error_at_time(rows: Sequence[Row], ms: float) -> float | None:
    """The error that is reached in a time, between the rows by logarithms; None where no row is as fast.

    Args:
        rows: with times and errors; more time beyond the slowest makes nothing better.
    """
    points = sorted((row.ms, row.error) for row in rows if row.ms and row.error)
    if not points or ms < points[0][0]:
        return None
    for (a, high), (b, low) in pairwise(points):
        if ms <= b:
            share = math.log(ms / a) / math.log(b / a) if b > a else 0.0
            return high * (low / high) ** share
    return points[-1][1]


def _mean_of_ages(fresh: Row, kept: Sequence[Row]) -> Row:
    """Kept maps are of ages from 0 on, as many as there are, all at one step."""
    error = error_of(fresh) * fmean(map(error_of, kept)) / error_of(kept[0])
    row = fresh.replace(host_ms=None, error=error)
    if fresh.ms is None or fresh.ratio is None:
        return row
    ms = (fresh.ms + (MAP_STEPS - 1) * fmean(x.ms for x in kept if x.ms is not None)) / MAP_STEPS
    return row.replace(ms=ms, ratio=fresh.ratio * fresh.ms / ms)


def _cells(rows: Sequence[Row]) -> list[tuple[str, float]]:
    return list(dict.fromkeys((row.case, row.density) for row in rows if row.density is not None))


def _errors_and_times(case: str, rows: Sequence[Row]) -> str:
    shown = [row for name in _SHOWN for row in rows if row.attention == name and row.stage == WHOLE_OP]
    return pivot(f"{case}: error, time", shown, lambda row: row.attention, lambda row: f"{row.density:g}", _cell)


def _cell(row: Row) -> str:
    if row.error is None:
        return "-"
    time = f", {row.ms:.2f} ms" if row.ms else ""
    return f"{row.error:.3f}{time}" + (f", {row.ratio:.2f}x" if row.ratio else "")


def _best_fixed_names(case: str, rows: Sequence[Row]) -> str:
    best = [(density, row.attention) for _, density in _cells(rows) if (row := best_fixed(rows, case, density))]
    return "Best fixed recipe at " + "; ".join(f"{density:g}: {name}" for density, name in best) if best else ""


def _map_ages(case: str, rows: Sequence[Row]) -> str:
    names = [map_name(age) for age in range(MAP_STEPS)]
    aged = [row for name in names for row in rows if row.attention == name]
    return pivot(
        f"{case}: age of the map, error at one step",
        aged,
        lambda row: f"{names.index(row.attention)} steps",
        lambda row: f"{row.density:g}",
        _cell,
    )


def _choosing(rows: Sequence[Row]) -> str:
    body = [
        [row.case, f"{row.density:g}", f"{row.ms:.2f} ms", f"{share:.2f}"]
        for row in rows
        if row.stage == CHOOSING and row.ms and (share := _of_dense(rows, row)) is not None
    ]
    return markdown(["choosing", "density", "time", "of a dense call"], body)


def _of_dense(rows: Sequence[Row], row: Row) -> float | None:
    """Milliseconds of a row by those of dense attention, timed beside it."""
    fresh = find(rows, row.case, CALIBRATED, row.density)
    if fresh is None or not row.ms or not fresh.ms or not fresh.ratio:
        return None
    return row.ms / (fresh.ms * fresh.ratio)


def _by_mean(case: str, other: str) -> Callable[[Sequence[Row]], float | None]:
    def figure(rows: Sequence[Row]) -> float | None:
        pairs = _pairs(rows, case, other)
        return sum(a for a, _ in pairs) / sum(b for _, b in pairs) if pairs else None

    return figure


def _largest(case: str, other: str) -> Callable[[Sequence[Row]], float | None]:
    return lambda rows: max((a / b for a, b in _pairs(rows, case, other)), default=None)


def _pairs(rows: Sequence[Row], case: str, other: str) -> list[tuple[float, float]]:
    """The calibrated error, and another's, at each density."""
    found = [(find(rows, case, CALIBRATED, d), find(rows, case, other, d)) for name, d in _cells(rows) if name == case]
    return [(error_of(ours), error_of(theirs)) for ours, theirs in found if ours is not None and theirs is not None]


def _at_time_of_sol(case: str) -> Callable[[Sequence[Row]], float | None]:
    def figure(rows: Sequence[Row]) -> float | None:
        ours = [row for row in rows if row.case == case and row.attention == KEPT]
        ours = ours or [row for row in rows if row.case == case and row.attention == CALIBRATED]
        shares = []
        for name, density in _cells(rows):
            orders = [find(rows, case, rival, density) for rival in (SOL, SOL_GILBERT)] if name == case else []
            timed = [row for row in orders if row is not None and row.ms]
            best = min(timed, key=error_of, default=None)
            error = error_at_time(ours, best.ms) if best is not None and best.ms is not None else None
            if best is not None and error is not None:
                shares.append(error / error_of(best))
        return max(shares, default=None)

    return figure


def _choosing_share(case: str) -> Callable[[Sequence[Row]], float | None]:
    def figure(rows: Sequence[Row]) -> float | None:
        found = [_of_dense(rows, row) for row in rows if row.case == case and row.stage == CHOOSING and row.ms]
        return max((share for share in found if share is not None), default=None)

    return figure


def _errors(source: Source, by_best: float, by_preset: float) -> list[Target]:
    name = source.name
    return [
        _at_most(f"mean error by that of the best fixed recipe, {name}", _by_mean(name, BEST_FIXED), by_best),
        _at_most(f"the same at the worst density, {name}", _largest(name, BEST_FIXED), 1.05),
        _at_most(f"mean error by that of the preset's recipe, {name}", _by_mean(name, PRESET), by_preset),
    ]


def _at_most(name: str, figure: Callable[[Sequence[Row]], float | None], bound: float) -> Target:
    return Target(name, PART, figure, bound, at_least=False)


TARGETS = (
    *_errors(TRAINED_SMALL, 0.9, 0.85),
    *_errors(TRAINED_LARGE, 0.9, 0.55),
    *_errors(SYNTHETIC, 1.0, 0.3),
    *(
        _at_most(f"error by Sol-Attn's in its time, {x.name}", _at_time_of_sol(x.name), 0.6)
        for x in SOURCES
        if x is not TRAINED_SMALL
    ),
    _at_most(f"choosing by a dense call, {SYNTHETIC.name}", _choosing_share(SYNTHETIC.name), 0.2),
)
