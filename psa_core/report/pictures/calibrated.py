"""What calibration did in a run, for its picture: the recipe of each layer and head, and errors by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ...settings.orders import ORDERS
from ...settings.recipe import MIXES, Recipe
from ..calibrated import Calibrated, MeasuredError
from .axes import SIZE, heading, round_ticks
from .heat_maps import DENSE, INK, PAPER

# Per order a colour, of which each mix has a lighter shade than the one before.
_COLOURS = {
    "Raster": "#0057b7", "Rows": "#b84a00", "Columns": "#b0124f", "Gilbert": "#007a3d", "Tile": "#6a2fb8",
    "Semantic": "#222222", "Hybrid": "#5f6f00",
}  # fmt: skip
_WHITENED = {"level 1": 0.0, "pyramid": 0.35, "tail": 0.62}
_MEAN, _SPREAD, _ASKED = "#1f2d7a", "#b5bfe6", "#c98a1b"
# Lines between cells are thinner in a map of more heads or layers than this.
_FEW = 24

Heads = Mapping[int, Sequence[tuple[Recipe, float]]]


def draw_recipes(axis: Any, heads: Heads, layers: int, of: str = "") -> None:
    """Draw the recipe of every layer (rows) and head (columns): the order as colour, the mix as its shade.

    Args:
        heads: recipes and errors of each layer's heads.
        layers: how many the model has; those without recipes are grey.
        of: which model, for the heading.
    """
    recipes = {layer: [recipe for recipe, _ in row] for layer, row in heads.items()}
    count = max(map(len, recipes.values()))
    cells = np.full((layers, count, 3), to_rgb(DENSE))
    for layer, row in recipes.items():
        cells[layer, : len(row)] = [_colour(recipe.order, recipe.mix) for recipe in row]
    axis.imshow(cells, aspect="auto", origin="lower", interpolation="nearest")
    width = 1 if max(layers, count) <= _FEW else 0.4
    axis.hlines(np.arange(1, layers) - 0.5, -0.5, count - 0.5, color=PAPER, linewidth=width)
    axis.vlines(np.arange(1, count) - 0.5, -0.5, layers - 0.5, color=PAPER, linewidth=width)
    axis.set(xticks=round_ticks(count), yticks=round_ticks(layers))
    axis.set_xlabel("head", fontsize=SIZE)
    axis.set_ylabel("layer", fontsize=SIZE)
    axis.tick_params(labelsize=SIZE - 1)
    axis.spines[:].set_visible(False)
    chosen = list(chain.from_iterable(recipes.values()))
    heading(axis, f"Recipes by layer and head{of}, chosen {_densities(chosen)}")
    _draw_legend(axis.inset_axes((1.09, 0.1, 0.2, 0.7)), chosen)


def draw_errors(axis: Any, calibrated: Calibrated) -> None:
    """Draw the errors that were measured, by step: from the least to the largest of a layer, their mean, and what was
    asked for."""
    by_step = _by_step(calibrated.errors())
    steps, asked = list(by_step), calibrated.asked_errors()
    means = [fmean(errors) for errors in by_step.values()]
    least, most = (list(map(pick, by_step.values())) for pick in (min, max))
    axis.vlines(steps, least, most, color=_SPREAD, linewidth=6, label="from layer to layer")
    axis.plot(steps, means, color=_MEAN, linewidth=1.4, marker="o", markersize=4, label="mean of layers")
    for i, error in enumerate(asked):
        axis.axhline(error, color=_ASKED, linestyle="--", linewidth=1.2, label="asked for" if i == 0 else None)
    axis.set_ylim(0, 1.15 * max([*most, *asked, 1e-9]))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 * error:g} %"))
    axis.tick_params(labelsize=SIZE - 1, labelbottom=False)
    axis.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axis.spines[:].set_visible(False)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=SIZE - 1, borderaxespad=0)
    heading(axis, f"Error of attention, measured on samples: {calibrated.error_words().removeprefix('error ')}")


def has_errors(calibrated: Calibrated) -> bool:
    """Whether there is an error to draw."""
    return bool(_by_step(calibrated.errors()))


def _by_step(measured: Sequence[MeasuredError]) -> dict[int, list[float]]:
    """Errors by step, without those that are no numbers."""
    by_step: dict[int, list[float]] = {}
    for step, _, error in sorted(measured):
        if isfinite(error):
            by_step.setdefault(step, []).append(error)
    return by_step


def _colour(order: str, mix: str) -> tuple[float, ...]:
    white = _WHITENED[mix]
    return tuple(part + white * (1 - part) for part in to_rgb(_COLOURS[order]))


def _draw_legend(axis: Any, recipes: Sequence[Recipe]) -> None:
    """A table of orders (rows) and mixes (columns): their colours, and the share of heads that have them."""
    counts = Counter((recipe.order, recipe.mix) for recipe in recipes)
    orders = [order for order in ORDERS if any(recipe.order == order for recipe in recipes)]
    axis.imshow([[_colour(order, mix) for mix in MIXES] for order in orders], aspect="auto", interpolation="nearest")
    for row, order in enumerate(orders):
        for column, mix in enumerate(MIXES):
            share = counts[order, mix] / len(recipes)
            colour = INK if _WHITENED[mix] else PAPER
            text = f"{100 * share:.0f} %" if share else "-"
            axis.text(column, row, text, ha="center", va="center", fontsize=SIZE - 2, color=colour)
    axis.hlines(np.arange(1, len(orders)) - 0.5, -0.5, len(MIXES) - 0.5, color=PAPER, linewidth=1)
    axis.set(xticks=range(len(MIXES)), xticklabels=MIXES, yticks=range(len(orders)), yticklabels=orders)
    axis.tick_params(labelsize=SIZE - 2, length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)


def _densities(recipes: Sequence[Recipe]) -> str:
    """The densities of recipes, for people."""
    densities = [recipe.density for recipe in recipes]
    least, most = min(densities), max(densities)
    if least == most:
        return f"at density {least:g}"
    return f"at densities {least:g} to {most:g} ({fmean(densities):.2f} on average)"
