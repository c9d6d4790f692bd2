"""Recipes on the device: which one each head takes, in the form that the ops read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from ..ops.device_cache import device_cache
from ..ops.importance.estimators import ESTIMATORS
from ..ops.levels.bounds import Quotas, bounds_at, quota_ends
from ..ops.reorder import Orders
from ..settings.mask_ratios import pyramid_order
from ..settings.orders import RASTER
from ..settings.recipe import Recipe
from .chunks import Chunk


class Choice(NamedTuple):
    """The recipe of every head of one call, on the device.

    Attributes:
        recipes: what there was to choose from.
        of_head: int64 ``[B, H]``: the number of each head's recipe among them.
        errors: float32 ``[B, H]``: the relative error of the head's output that it was chosen by.
        spot: float32 ``[2, B, H]``: squared norms of what is wrong and of what is right in the blocks that are measured
            again (:func:`psa_core.attention.trial.measure_again`); zeros where nothing was measured.
    """

    recipes: tuple[Recipe, ...]
    of_head: torch.Tensor
    errors: torch.Tensor
    spot: torch.Tensor

    def at_density(self, density: float | None) -> Choice:
        """The same recipes at another density; None for their own."""
        if density is None:
            return self
        return self._replace(recipes=_at_density(self.recipes, density))

    def where(self, entries: torch.Tensor, other: Choice) -> Choice:
        """This choice in some batch entries, bool ``[B]``, and in the others another of the same recipes."""
        here = entries[:, None]
        of_head, errors, spot = (torch.where(here, x, y) for x, y in zip(self[1:], other[1:], strict=True))
        return Choice(self.recipes, of_head, errors, spot)


# Asked on every attention call.
@lru_cache(maxsize=64)
def _at_density(recipes: tuple[Recipe, ...], density: float) -> tuple[Recipe, ...]:
    return tuple(dataclasses.replace(recipe, density=density) for recipe in recipes)


class HeadRecipes(NamedTuple):
    """What the recipes of all heads mean for one call.

    Attributes:
        orders: of the tokens; None where every head takes them as they lie.
        estimators: those that some head may have.
        estimator_of_head: int32 ``[B, H]``, numbers in the order of ``ESTIMATORS``.
        quotas: of the levels.
    """

    orders: Orders | None
    estimators: tuple[str, ...]
    estimator_of_head: torch.Tensor
    quotas: Quotas

    def part(self, chunk: Chunk) -> HeadRecipes:
        """What they mean for some of the heads."""
        orders = None if self.orders is None else self.orders.of_heads(chunk.copy_of)
        quotas = self.quotas._replace(bounds=chunk.copy_of(self.quotas.bounds))
        return HeadRecipes(orders, self.estimators, chunk.copy_of(self.estimator_of_head), quotas)


def head_recipes(
    recipes: Sequence[Recipe],
    of_head: torch.Tensor,
    block_n: int,
    k_blocks: tuple[int, ...],
    orders_of: Callable[[tuple[str, ...], torch.Tensor], Orders | None] | None,
) -> HeadRecipes:
    """What heads have to do that take these recipes.

    Args:
        recipes: those there are.
        of_head: int64 ``[B, H]`` on the device, the number of each head's.
        block_n: keys a key block.
        k_blocks: key blocks that each row of the map has; one number for all where they have as many.
        orders_of: makes the orders of names, int32 ``[B, H]`` which of them each head takes; None leaves tokens as they
            lie, whatever the recipes say.
    """
    names, estimators, levels, table = _table(tuple(recipes), block_n, k_blocks, of_head.device)
    orders = None
    if orders_of is not None and names != (RASTER,):
        orders = orders_of(names, table.order[of_head])
    return HeadRecipes(orders, estimators, table.estimator[of_head], Quotas(levels, table.bounds[of_head]))


class _Table(NamedTuple):
    """Per recipe: the number of its order, int32 ``[R]``, of its estimator, and its bounds, int32 ``[R, rows, n]``."""

    order: torch.Tensor
    estimator: torch.Tensor
    bounds: torch.Tensor


# One a set of candidates and length; a few kilobytes.
@device_cache(maxsize=64)
def _table(
    recipes: tuple[Recipe, ...], block_n: int, k_blocks: tuple[int, ...], device: torch.device
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], _Table]:
    """Names of the orders and of the estimators, the levels, and the table over them."""
    names = tuple(dict.fromkeys(recipe.order for recipe in recipes))
    estimators = tuple(name for name in ESTIMATORS if any(recipe.estimator == name for recipe in recipes))
    used = {level for recipe in recipes for level, (lo, hi) in recipe.mask_ratios(block_n).items() if hi > lo}
    levels = tuple(sorted(used, key=pyramid_order))
    columns = (
        torch.tensor([names.index(recipe.order) for recipe in recipes], dtype=torch.int32),
        torch.tensor([list(ESTIMATORS).index(recipe.estimator) for recipe in recipes], dtype=torch.int32),
        bounds_at([quota_ends(recipe.mask_ratios(block_n), levels) for recipe in recipes], k_blocks),
    )
    return names, estimators, levels, _Table(*(column.to(device) for column in columns))
