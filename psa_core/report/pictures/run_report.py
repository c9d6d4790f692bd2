"""One picture of a run: density and levels by step, what stayed dense and why, and the time that attention took."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from ..report import Report
from .heat_maps import DENSE, FAINT, INK, PAPER, as_image, by_layer_and_step, draw_cells, level_colours, level_name

_WIDTH, _DPI = 9.2, 100
_SPARSE = "#2c7fb8"
_SIZE = 9
_TITLE_LETTERS, _LABEL_LETTERS = 98, 34
# A cell is wide enough for its number up to this many steps.
_MOST_NUMBERS = 20
_MOST_ROWS = 10


class _Row(NamedTuple):
    """Calls of one kind: sparse, or dense for one reason."""

    name: str
    calls: int
    seconds: float | None
    colour: str


def report_picture(models: Sequence[Report]) -> Image.Image:
    """Draw what a run did, about 900 pixels wide, RGB.

    Args:
        models: a report for each model that took part, such as Wan 2.2's two experts. They are drawn as one run; where
            each has steps of its own, lines show where one takes over from the other.
    """
    whole = Report.of(models)
    rows = _rows(whole)
    heights = [0.55 + 0.27 * sum(row.name.count("\n") + 1 for row in rows)]
    if whole.sparse_count:
        heights = [float(np.clip(0.5 + 0.16 * (max(whole.layers) + 1), 1.5, 4.2)), 1.7, *heights]
    title = textwrap.fill(whole.line(), _TITLE_LETTERS, max_lines=3, placeholder=" ...")
    height = sum(heights) + 0.55 * len(heights) + 0.2 * (title.count("\n") + 1)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, hspace=0.03)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor=PAPER, layout=layout)
    figure.suptitle(title, x=0.012, ha="left", fontsize=10.5, color=INK, fontweight="bold")
    grid = GridSpec(len(heights), 1, figure, height_ratios=heights)
    if whole.sparse_count:
        top = figure.add_subplot(grid[0])
        changes = _changes(models)
        _draw_density(top, whole, "; dashed: the next model takes over" if changes else "")
        below = figure.add_subplot(grid[1], sharex=top)
        _draw_shares(below, whole)
        for step in changes:
            for axis in (top, below):
                axis.axvline(step - 0.5, color=INK, linewidth=1.3, linestyle=(0, (4, 2)))
    counts, times = grid[-1].subgridspec(1, 2, wspace=0.04).subplots(squeeze=False, sharey=True)[0]
    _draw_rows(counts, times, rows, whole)
    return as_image(figure)


def _draw_density(axis: Any, report: Report, note: str) -> None:
    """Density by layer and step as a heat map, with a note behind its heading."""
    table = by_layer_and_step(report.sparse_calls(), (max(report.layers) + 1, max(report.steps) + 1))
    image = draw_cells(axis, table, 1.0, numbers=table.shape[1] <= _MOST_NUMBERS)
    bar = axis.figure.colorbar(image, cax=axis.inset_axes((1.015, 0, 0.025, 1)))
    bar.ax.tick_params(labelsize=_SIZE - 1)
    bar.outline.set_visible(False)
    _heading(axis, f"Density by layer and step: {report.density():.2f} of dense attention's work on average{note}")
    axis.set_ylabel("layer", fontsize=_SIZE)
    axis.set(xticks=_ticks(table.shape[1]), yticks=_ticks(table.shape[0]))
    axis.tick_params(labelsize=_SIZE - 1, labelbottom=False)
    axis.spines[:].set_visible(False)


def _draw_shares(axis: Any, report: Report) -> None:
    """The share of block pairs at each level, stacked, step by step."""
    overall = report.level_shares()
    colours = level_colours(overall)
    steps = sorted(report.steps)
    by_step = {step: report.level_shares(step) for step in steps}
    style: dict[str, Any] = {"width": 1.0, "edgecolor": PAPER, "linewidth": 1 if len(steps) <= _MOST_NUMBERS else 0.3}
    # What is skipped lies on top, so that the rest stands for the work that is left.
    base = np.zeros(len(steps))
    for level, share in overall.items():
        part = np.array([by_step[step].get(level, 0.0) for step in steps])
        label = f"{level_name(level)}  {100 * share:.1f} %"
        axis.bar(steps, part, bottom=base, color=colours[level], label=label, **style)
        base += part
    dense = [step for step in steps if not by_step[step]]
    if dense:
        axis.bar(dense, 1.0, color=DENSE, label="ran dense", **style)
    axis.set(xlim=(-0.5, steps[-1] + 0.5), xticks=_ticks(steps[-1] + 1))
    axis.set(ylim=(0, 1), yticks=[0, 0.5, 1], yticklabels=["0", "50 %", "100 %"])
    axis.set_xlabel("denoising step", fontsize=_SIZE)
    axis.tick_params(labelsize=_SIZE - 1)
    axis.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=_SIZE - 1, reverse=True, borderaxespad=0
    )
    _heading(axis, "Blocks by level, in sparse calls")
    axis.spines[:].set_visible(False)


def _changes(models: Sequence[Report]) -> list[int]:
    """The steps at which one model takes over from another, when they have no step in common."""
    spans = sorted((min(report.steps), max(report.steps)) for report in models if report.steps)
    return [after for (_, before), (after, _) in pairwise(spans) if after > before]


def _draw_rows(counts: Any, times: Any, rows: list[_Row], report: Report) -> None:
    """Calls, and the time they took, of every kind; one scale for each."""
    places = np.arange(len(rows))
    seconds = report.seconds()
    scale, unit = (1, "s") if (seconds.attention or 0) >= 1 else (1000, "ms")
    for axis, values, texts in (
        (counts, [row.calls for row in rows], [f"{row.calls:,}" for row in rows]),
        (
            times,
            [row.seconds or 0.0 for row in rows],
            ["not measured" if row.seconds is None else f"{row.seconds * scale:,.3g} {unit}" for row in rows],
        ),
    ):
        bars = axis.barh(places, values, color=[row.colour for row in rows], height=0.68)
        axis.bar_label(bars, labels=texts, padding=4, fontsize=_SIZE, color=INK)
        axis.set_xlim(0, 1.32 * max([*values, 1e-9]))
        axis.set(yticks=places, yticklabels=[row.name for row in rows], xticks=[])
        axis.tick_params(axis="y", length=0, labelsize=_SIZE)
        axis.spines[:].set_visible(False)
    times.tick_params(labelleft=False)
    counts.invert_yaxis()
    _heading(counts, "Attention calls")
    _heading(times, _time_heading(report))


def _rows(report: Report) -> list[_Row]:
    """Sparse calls first, then reasons for dense ones, the most frequent first; the rarest in one row."""
    seconds = report.seconds()
    reasons = report.dense_reasons.most_common()
    rows = [_Row("sparse", report.sparse_count, seconds.sparse, _SPARSE)] if report.sparse_count or not reasons else []
    kept = len(reasons) if len(reasons) < _MOST_ROWS else _MOST_ROWS - 2
    for reason, calls in reasons[:kept]:
        name = textwrap.fill(f"dense: {reason}", _LABEL_LETTERS)
        rows.append(_Row(name, calls, seconds.dense.get(reason), "#9a9a9a"))
    if reasons[kept:]:
        took = [seconds.dense[reason] for reason, _ in reasons[kept:] if reason in seconds.dense]
        calls = sum(calls for _, calls in reasons[kept:])
        rows.append(_Row(f"dense: {len(reasons) - kept} other reasons", calls, sum(took) if took else None, "#9a9a9a"))
    return rows


def _time_heading(report: Report) -> str:
    seconds = report.seconds()
    if seconds.attention is None:
        return "Time in attention: not measured"
    text = f"Time in attention: {_time(seconds.attention)}"
    return f"{text} of the model's {_time(seconds.model)}" if seconds.model else text


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _ticks(count: int) -> np.ndarray:
    """Round numbers from 0 on, below ``count`` and few enough to be read."""
    return np.arange(0, count, next(step for step in (1, 2, 5, 10, 20, 50, count) if count <= 14 * step))


def _heading(axis: Any, text: str) -> None:
    axis.set_title(text, fontsize=_SIZE + 0.5, color=FAINT, loc="left")
