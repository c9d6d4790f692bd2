"""One picture of a run: density, error and levels by step, recipes, what stayed dense and why, and attention's time."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from ..report import Report
from .axes import SIZE, heading, round_ticks
from .calibrated import draw_errors, draw_recipes, has_errors
from .heat_maps import DENSE, INK, PAPER, as_image, by_layer_and_step, draw_cells, level_colours, level_name

_WIDTH, _DPI = 9.2, 100
_SPARSE, _CALIBRATION = "#2c7fb8", "#8fc3e2"
_TITLE_LETTERS, _LABEL_LETTERS = 98, 34
# A cell is wide enough for its number up to this many steps.
_MOST_NUMBERS = 20
_MOST_ROWS = 10
# Ages of level maps that are told one by one.
_MOST_AGES = 4


class _Row(NamedTuple):
    """Calls of one kind: sparse, or dense for one reason."""

    name: str
    calls: int
    seconds: float | None
    colour: str


class _Panel(NamedTuple):
    """A part of the picture: its height in inches, and what draws it into an axis."""

    height: float
    draw: Callable[[Any], None]


def report_picture(models: Sequence[Report]) -> Image.Image:
    """Draw what a run did, about 900 pixels wide, RGB.

    Args:
        models: a report for each model that took part, such as Wan 2.2's two experts. They are drawn as one run; where
            each has steps of its own, lines show where one takes over from the other.
    """
    whole = Report.of(models)
    rows = _rows(whole)
    changes = _changes(models)
    over_steps = _over_steps(whole, bool(changes)) if whole.sparse_count else []
    recipes = _recipes(models)
    heights = [panel.height for panel in (*over_steps, *recipes)]
    heights.append(0.55 + 0.27 * sum(row.name.count("\n") + 1 for row in rows))
    title = textwrap.fill(whole.line(), _TITLE_LETTERS, max_lines=3, placeholder=" ...")
    height = sum(heights) + 0.55 * len(heights) + 0.2 * (title.count("\n") + 1)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, hspace=0.03)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor=PAPER, layout=layout)
    figure.suptitle(title, x=0.012, ha="left", fontsize=10.5, color=INK, fontweight="bold")
    grid = GridSpec(len(heights), 1, figure, height_ratios=heights)
    top = None
    for i, panel in enumerate(over_steps):
        axis = figure.add_subplot(grid[i], sharex=top)
        top = top or axis
        panel.draw(axis)
        for step in changes:
            axis.axvline(step - 0.5, color=INK, linewidth=1.3, linestyle=(0, (4, 2)))
    for i, panel in enumerate(recipes, len(over_steps)):
        panel.draw(figure.add_subplot(grid[i]))
    counts, times = grid[-1].subgridspec(1, 2, wspace=0.04).subplots(squeeze=False, sharey=True)[0]
    _draw_rows(counts, times, rows, whole)
    return as_image(figure)


def _over_steps(report: Report, takes_turns: bool) -> list[_Panel]:
    """The panels whose horizontal axis is the denoising step."""
    note = "; dashed: the next model takes over" if takes_turns else ""
    panels = [
        _Panel(_height_of_layers(report), partial(_draw_density, report=report, note=note)),
        _Panel(1.7, partial(_draw_shares, report=report)),
    ]
    if has_errors(report.calibrated):
        panels.insert(1, _Panel(1.1, partial(draw_errors, calibrated=report.calibrated)))
    return panels


def _recipes(models: Sequence[Report]) -> list[_Panel]:
    """A panel for each model whose heads have recipes."""
    calibrated = [(report, expert) for report in models for expert in report.calibrated.experts]
    panels = []
    for number, (report, expert) in enumerate(calibrated, 1):
        of = f" of model {number}" if len(calibrated) > 1 else ""
        heads, layers = report.calibrated.heads(expert), max(report.layers) + 1
        panels.append(_Panel(_height_of_layers(report), partial(draw_recipes, heads=heads, layers=layers, of=of)))
    return panels


def _height_of_layers(report: Report) -> float:
    """Of a panel with a row for each layer."""
    return float(np.clip(0.5 + 0.16 * (max(report.layers) + 1), 1.5, 4.2))


def _draw_density(axis: Any, report: Report, note: str) -> None:
    """Density by layer and step as a heat map, with a note behind its heading."""
    table = by_layer_and_step(report.sparse_calls(), (max(report.layers) + 1, max(report.steps) + 1))
    image = draw_cells(axis, table, 1.0, numbers=table.shape[1] <= _MOST_NUMBERS)
    bar = axis.figure.colorbar(image, cax=axis.inset_axes((1.015, 0, 0.025, 1)))
    bar.ax.tick_params(labelsize=SIZE - 1)
    bar.outline.set_visible(False)
    heading(axis, f"Density by layer and step: {report.density():.2f} of dense attention's work on average{note}")
    axis.set_ylabel("layer", fontsize=SIZE)
    axis.set(xticks=round_ticks(table.shape[1]), yticks=round_ticks(table.shape[0]))
    axis.tick_params(labelsize=SIZE - 1, labelbottom=False)
    axis.spines[:].set_visible(False)


def _draw_shares(axis: Any, report: Report) -> None:
    """The share of block pairs at each level, stacked, step by step."""
    # Mixes of calibrated attention leave out most levels between the finest and the coarsest.
    overall = {level: share for level, share in report.level_shares().items() if share or not level}
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
    axis.set(xlim=(-0.5, steps[-1] + 0.5), xticks=round_ticks(steps[-1] + 1))
    axis.set(ylim=(0, 1), yticks=[0, 0.5, 1], yticklabels=["0", "50 %", "100 %"])
    axis.set_xlabel("denoising step", fontsize=SIZE)
    axis.tick_params(labelsize=SIZE - 1)
    axis.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=SIZE - 1, reverse=True, borderaxespad=0
    )
    heading(axis, f"Blocks by level, in sparse calls{_ages(report)}")
    axis.spines[:].set_visible(False)


def _ages(report: Report) -> str:
    """How many calls had level maps of which age, for a heading; empty where none was kept."""
    ages = report.map_ages()
    if not any(ages):
        return ""
    told = [f"{age}: {calls:,}" for age, calls in [*ages.items()][:_MOST_AGES]]
    older = [*ages.items()][_MOST_AGES:]
    if older:
        told.append(f"{older[0][0]} to {older[-1][0]}: {sum(calls for _, calls in older):,}")
    return f"; calls by their map's age in steps: {', '.join(told)}"


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
        axis.bar_label(bars, labels=texts, padding=4, fontsize=SIZE, color=INK)
        axis.set_xlim(0, 1.32 * max([*values, 1e-9]))
        axis.set(yticks=places, yticklabels=[row.name for row in rows], xticks=[])
        axis.tick_params(axis="y", length=0, labelsize=SIZE)
        axis.spines[:].set_visible(False)
    times.tick_params(labelleft=False)
    counts.invert_yaxis()
    heading(counts, "Attention calls")
    heading(times, _time_heading(report))


def _rows(report: Report) -> list[_Row]:
    """Sparse calls first, then reasons for dense ones, the most frequent first; the rarest in one row."""
    seconds = report.seconds()
    reasons = report.dense_reasons.most_common()
    rows = [_Row("sparse", report.sparse_count, seconds.sparse, _SPARSE)] if report.sparse_count or not reasons else []
    if report.calibrated:
        rows.append(_Row("of these, calibration", report.calibrated.calls, seconds.calibration, _CALIBRATION))
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
