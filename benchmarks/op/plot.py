"""Results as a picture: speed-up by density and by length. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from psa_core.apps.bench.cases import DENSITY_PART
from psa_core.apps.bench.results import PSA, WHOLE_OP, Results, Row
from psa_core.report.pictures.heat_maps import save_figure
from psa_core.settings.errors import ConfigError

from .cases import LENGTH_PART
from .flex import FLEX

_STYLES = {"mean": "-", "sampled_max": "--"}
_MARKERS = {"mean": "o", "sampled_max": "s"}

Line = tuple[str, list[tuple[float, float]], dict[str, Any]]


def draw(results: Results, file: str | Path) -> None:
    """Draw two panels side by side, of whole ops against dense attention in the same run.

    Args:
        results: with the sweeps of density and of length, or one of them.
        file: an image file; its name ends in .png, .svg or .pdf.

    Raises:
        ConfigError: the results hold neither sweep.
    """
    by_density, by_length = _density_lines(results.rows), _length_lines(results.rows)
    panels = [(draw, lines) for draw, lines in ((_density_panel, by_density), (_length_panel, by_length)) if lines]
    if not panels:
        raise ConfigError("--plot", str(file), "the results must hold a sweep of density or of length")
    figure = Figure(figsize=(6.6 * len(panels), 5.4), facecolor="white", layout="constrained")
    for axis, (panel, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_lines(axis, lines)
        panel(axis, lines)
        axis.axhline(1, color="#444444", linewidth=1)
        axis.set_ylabel(f"times faster than dense ({results.dense})")
        axis.grid(color="#e5e5e5")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncol=2)
    machine = results.machine
    title = f"Pyramid Sparse Attention, whole op, bf16 | {machine.gpu} | dense = {results.dense} | {machine.date}"
    figure.suptitle(title, fontsize=11)
    save_figure(figure, Path(file))


def _density_lines(rows: Sequence[Row]) -> list[Line]:
    cases = list(dict.fromkeys(row.case for row in rows if row.part == DENSITY_PART))
    lines = []
    for i, case in enumerate(cases):
        chosen = [row for row in rows if row.part == DENSITY_PART and row.case == case]
        for attention, importance in ((PSA, "mean"), (PSA, "sampled_max"), (FLEX, None)):
            points = _points(chosen, attention, importance, lambda row: row.reached_density)
            who = f"{attention}, {importance}" if importance else f"{attention} (level 1 only, blocks given)"
            lines.append((f"{case}: {who}", points, _style(i, importance)))
    return [line for line in lines if line[1]]


def _length_lines(rows: Sequence[Row]) -> list[Line]:
    chosen = [row for row in rows if row.part == LENGTH_PART and row.attention == PSA]
    lines = []
    sweeps = dict.fromkeys((row.case, row.density) for row in chosen)
    for i, (case, density) in enumerate(sweeps):
        sweep = [row for row in chosen if (row.case, row.density) == (case, density)]
        for importance in _STYLES:
            points = _points(sweep, PSA, importance, lambda row: row.tokens)
            lines.append((f"{case}, density {density:g}, {importance}", points, _style(i, importance)))
    return [line for line in lines if line[1]]


def _points(rows: Sequence[Row], attention: str, importance: str | None, x: Any) -> list[tuple[float, float]]:
    found = [
        row for row in rows if row.attention == attention and row.importance == importance and row.stage == WHOLE_OP
    ]
    return sorted((x(row), row.ratio) for row in found if row.ratio and x(row))


def _style(colour: int, importance: str | None) -> dict[str, Any]:
    return {
        "color": colormaps["tab10"](colour),
        "linestyle": _STYLES.get(importance or "", ":"),
        "marker": _MARKERS.get(importance or "", "x"),
        "markersize": 4,
    }


def _draw_lines(axis: Any, lines: Sequence[Line]) -> None:
    for label, points, style in lines:
        axis.plot(*zip(*points, strict=True), label=label, **style)


def _density_panel(axis: Any, lines: Sequence[Line]) -> None:
    densities = sorted({x for _, points, _ in lines for x, _ in points})
    fine = [densities[0] + (densities[-1] - densities[0]) * i / 100 for i in range(101)]
    axis.plot(fine, [1 / x for x in fine], color="#999999", linewidth=1, label="1 / density")
    axis.set(title="by density", xlabel="density reached: share of dense attention's FLOPs", yscale="log")
    axis.set_yticks([1, 2, 3, 5, 10, 20], labels=["1", "2", "3", "5", "10", "20"])
    axis.minorticks_off()


def _length_panel(axis: Any, lines: Sequence[Line]) -> None:
    lengths = sorted({x for _, points, _ in lines for x, _ in points})
    axis.set(title="by length", xlabel="tokens", xscale="log")
    axis.set_xticks(lengths, labels=[f"{x / 1000:.0f}k" for x in lengths])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
