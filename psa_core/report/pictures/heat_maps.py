"""Pictures of a report: level maps, density and error by layer and step. Needs matplotlib, which the core does not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ...ops.levels.rules import density
from ...settings.files import written_whole
from ..calls import AttentionError
from ..report import Report

_SKIPPED = "#f2f0ea"
# Calls that ran dense; the picture's ground; its letters.
DENSE = "#d9d9d9"
PAPER = "#ffffff"
INK = "#222222"
FAINT = "#767676"
# Numbers stay readable in a heat map of up to this many cells a side.
_MOST_NUMBERS = 24


def levels_picture(report: Report, file: str | Path, *, head: int = 0, rows: int = 2, columns: int = 4) -> None:
    """Draw level maps of some steps (rows) and layers (columns), evenly chosen, first and last among them.

    Args:
        report: of a run that kept level maps.
        file: an image file; its name ends in .png, .svg or .pdf.
        head: the attention head to draw, of the first sample.
        rows, columns: how many steps and layers at most.

    Raises:
        ValueError: the report holds no level map.
    """
    maps = report.level_maps
    if not maps:
        raise ValueError("the report holds no level maps: ask for them (keep_levels=True) before the run")
    steps = _evenly(sorted({step for step, _ in maps}), rows)
    layers = _evenly(sorted({layer for _, layer in maps}), columns)
    figure = Figure(figsize=(3.1 * len(layers) + 0.8, 2.7 * len(steps) + 1.6), facecolor=PAPER, layout="constrained")
    axes = figure.subplots(len(steps), len(layers), squeeze=False, sharex=True, sharey=True)
    drawn = [maps[key] for key in product(steps, layers) if key in maps]
    colours = level_colours(int(level) for levels in drawn for level in levels.unique())
    for row, step in enumerate(steps):
        for column, layer in enumerate(layers):
            if (step, layer) in maps:
                _draw_levels(axes[row][column], maps[step, layer][0, head].cpu(), colours)
            axes[row][column].set_title(_levels_title(maps.get((step, layer)), step, layer, head), fontsize=9)
    figure.suptitle(f"What each query block sees of each key block (head {head})", fontsize=13, color=INK)
    for axis in axes[-1]:
        axis.set_xlabel("key block", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("query block", fontsize=9)
    figure.legend(
        handles=[Patch(facecolor=colour, edgecolor="#999999", label=level_name(x)) for x, colour in colours.items()],
        loc="outside lower center",
        # Two rows where one would run out of the picture.
        ncols=len(colours) if len(colours) <= 2 * len(layers) - 2 else -(-len(colours) // 2),
        frameon=False,
        fontsize=9,
    )
    save_figure(figure, Path(file))


def density_picture(report: Report, file: str | Path) -> None:
    """Draw the density of every layer (rows) at every step (columns) as a heat map.

    Args:
        report: of any run.
        file: an image file; its name ends in .png, .svg or .pdf.

    Raises:
        ValueError: no call ran sparse.
    """
    calls = report.sparse_calls()
    if not calls:
        raise ValueError("no call ran sparse: there is no density to draw")
    title = f"Density by layer and step: {report.density():.2f} on average"
    _draw_heat_map(by_layer_and_step(calls), 1.0, title, "share of dense attention's work", file)


def errors_picture(errors: Sequence[AttentionError], file: str | Path, *, most: float | None = None) -> None:
    """Draw the error of every layer (rows) at every step (columns) as a heat map.

    Args:
        errors: of the sparse calls of a run; those of one layer and step are averaged.
        file: an image file; its name ends in .png, .svg or .pdf.
        most: where the colours end, for several pictures to share them; None for the highest that is drawn.

    Raises:
        ValueError: there is no error to draw.
    """
    if not errors:
        raise ValueError("no error was measured: there is none to draw")
    table = by_layer_and_step(errors)
    mean = sum(call.error for call in errors) / len(errors)
    title = f"Error of attention by layer and step: {mean:.2g} on average"
    highest = float(np.nanmax(table)) if most is None else most
    _draw_heat_map(table, highest, title, "relative error of the output", file)


def by_layer_and_step(calls: Sequence[tuple[int, int, float]], shape: tuple[int, int] | None = None) -> np.ndarray:
    """Means of (step, layer, number) as ``[layers, steps]``, by default as many as hold numbers; NaN for none."""
    if shape is None:
        shape = max(layer for _, layer, _ in calls) + 1, max(step for step, _, _ in calls) + 1
    total, count = np.zeros(shape), np.zeros(shape)
    for step, layer, number in calls:
        total[layer, step] += number
        count[layer, step] += 1
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)


def _draw_heat_map(table: np.ndarray, most: float, title: str, label: str, file: str | Path) -> None:
    """Draw ``[layers, steps]``, with colours from 0 to ``most``."""
    shape = table.shape
    width, height = np.clip((2.6 + 0.55 * shape[1], 2.2 + 0.45 * shape[0]), (6.4, 3.4), (11, 7.5))
    figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    figure.colorbar(draw_cells(axis, table, most), label=label)
    axis.set(xlabel="denoising step", ylabel="layer")
    axis.set_title(title, fontsize=12, color=INK)
    if np.isnan(table).any():
        grey = Patch(facecolor=DENSE, edgecolor="#999999", label="ran dense (warm-up and the like)")
        figure.legend(handles=[grey], loc="outside lower center", frameon=False, fontsize=9)
    save_figure(figure, Path(file))


def save_figure(figure: Figure, file: Path, dpi: int = 150) -> None:
    """Write a figure whole.

    Args:
        file: its name ends in .png, .svg or .pdf.
        dpi: dots an inch, of the sizes that the figure is made of.

    Raises:
        WriteError: the file cannot be written.
    """
    with written_whole(file) as draft:
        figure.savefig(draft, dpi=dpi, format=file.suffix[1:])


def draw_cells(axis: Any, table: np.ndarray, most: float, numbers: bool = True) -> Any:
    """Draw ``[layers, steps]`` into an axis, with colours from 0 to ``most``, and return what a colour bar explains.

    Args:
        numbers: write them into their cells, where these are few.
    """
    layers, steps = table.shape
    few = max(layers, steps) <= _MOST_NUMBERS
    axis.set_facecolor(DENSE)
    image = axis.imshow(table, cmap="YlGnBu", vmin=0, vmax=most or 1.0, aspect="auto", origin="lower")
    axis.hlines(np.arange(1, layers) - 0.5, -0.5, steps - 0.5, color=PAPER, linewidth=1 if few else 0.4)
    axis.vlines(np.arange(1, steps) - 0.5, -0.5, layers - 0.5, color=PAPER, linewidth=1 if few else 0.4)
    _whole_ticks(axis)
    if few and numbers:
        _write_numbers(axis, table, most)
    return image


def as_image(figure: Figure) -> Image.Image:
    """A figure as an RGB image of its own size."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _evenly(values: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the values, evenly spread, first and last among them."""
    places = np.linspace(0, len(values) - 1, min(most, len(values)))
    return [values[round(place)] for place in places]


def level_colours(levels: Iterable[int]) -> dict[int, Any]:
    """A colour for every level, dark for fine; skipped comes last."""
    found = sorted(set(levels) - {0})
    shades = colormaps["YlGnBu_r"](np.linspace(0.08, 0.8, max(len(found), 2)))
    return {**{level: tuple(shade[:3]) for level, shade in zip(found, shades, strict=False)}, 0: to_rgb(_SKIPPED)}


def _draw_levels(axis: Any, levels: torch.Tensor, colours: dict[int, Any]) -> None:
    """Draw a level map ``[q_blocks, k_blocks]``."""
    picture = np.zeros((*levels.shape, 3))
    for level, colour in colours.items():
        picture[levels.numpy() == level] = colour
    axis.imshow(picture, aspect="auto", interpolation="nearest")
    axis.tick_params(labelsize=8)
    _whole_ticks(axis)


def _whole_ticks(axis: Any) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def _levels_title(levels: torch.Tensor | None, step: int, layer: int, head: int) -> str:
    place = f"layer {layer}, step {step}"
    return f"{place}: dense" if levels is None else f"{place}: density {float(density(levels[0, head])):.2f}"


def level_name(level: int) -> str:
    """What a level means, for a legend."""
    if level == 0:
        return "skipped"
    return "1: every key" if level == 1 else f"{level}: means of {level} keys"


def _write_numbers(axis: Any, table: np.ndarray, most: float) -> None:
    for (layer, step), value in np.ndenumerate(table):
        if not math.isnan(value):
            colour = "white" if value > 0.55 * most else INK
            axis.text(step, layer, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
