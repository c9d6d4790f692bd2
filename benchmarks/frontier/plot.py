"""The frontier as a picture: error against how many times faster than dense. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from psa_core.apps.bench.results import WHOLE_OP, Results, Row
from psa_core.apps.bench.rivals import SOL
from psa_core.report.pictures.heat_maps import save_figure
from psa_core.settings.errors import ConfigError

from ..op.flex import FLEX
from .ours import CALIBRATED, FIXED, PRESET
from .rivals import SOL_GILBERT
from .tables import KEPT, with_best_fixed

_OURS, _PRESET, _FIXED = "#2166ac", "#67a9cf", "#c4c4c4"
# Numbers at an axis, times powers of ten: far enough apart to be read.
_TICKS = (1, 1.5, 2, 3, 5, 7)
_STYLES: dict[str, dict[str, Any]] = {
    KEPT: {"color": _OURS, "marker": "o", "linewidth": 2.2},
    CALIBRATED: {"color": _OURS, "marker": "o", "linestyle": "--", "markerfacecolor": "white"},
    PRESET: {"color": _PRESET, "marker": "s", "label": "preset's recipe on every head"},
    SOL: {"color": "#b2182b", "marker": "^"},
    SOL_GILBERT: {"color": "#b2182b", "marker": "^", "linestyle": ":", "markerfacecolor": "white"},
    FLEX: {"color": "#7a7a7a", "marker": "x"},
}


def draw(results: Results, file: str | Path) -> None:
    """Draw a panel for each case, with a line over densities for each attention; lower and further right is better.

    Args:
        results: of ``psa bench --frontier`` on a GPU.
        file: an image file; its name ends in .png, .svg or .pdf.

    Raises:
        ConfigError: the results have no times.
    """
    rows = [row for row in with_best_fixed(results.rows) if row.stage == WHOLE_OP and row.ratio and row.error]
    cases = list(dict.fromkeys(row.case for row in rows))
    if not cases:
        raise ConfigError("--plot", str(file), "the results must hold times of the frontier")
    figure = Figure(figsize=(4.4 * len(cases), 4.6), facecolor="white", layout="constrained")
    axes = figure.subplots(1, len(cases), squeeze=False)[0]
    for axis, case in zip(axes, cases, strict=True):
        _panel(axis, case, [row for row in rows if row.case == case])
    axes[0].set_ylabel("relative error of the output, mean over heads")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncol=4)
    machine = results.machine
    title = f"Error against speed, whole op, bf16 | {machine.gpu} | dense = {results.dense} | {machine.date}"
    figure.suptitle(title, fontsize=11)
    save_figure(figure, Path(file))


def _panel(axis: Any, case: str, rows: Sequence[Row]) -> None:
    for i, name in enumerate(FIXED):
        label = "other fixed recipes" if i == 0 else None
        _line(axis, rows, name, color=_FIXED, linestyle="none", marker=".", markersize=4, label=label)
    for name, style in _STYLES.items():
        _line(axis, rows, name, **{"label": name, "linewidth": 1.6, "markersize": 5, **style})
    tokens = rows[0].tokens
    axis.set(title=f"{case} ({tokens:,} tokens)", xlabel="times faster than dense", xscale="log", yscale="log")
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_locator(LogLocator(subs=_TICKS))
        each.set_major_formatter("{x:g}")
        each.set_minor_locator(NullLocator())
    axis.tick_params(labelsize=9)
    axis.grid(color="#e5e5e5")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _line(axis: Any, rows: Sequence[Row], name: str, **style: Any) -> None:
    points = sorted((row.ratio, row.error) for row in rows if row.attention == name)
    if points:
        axis.plot(*zip(*points, strict=True), **style)
