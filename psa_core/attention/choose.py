"""Calibration of one call: every candidate's error on a few query blocks, and each head's choice by it.

All of it happens on the device and waits for nothing, and the same tensors give the same choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, groupby

import torch

from ..ops.constant import constant
from ..settings.recipe import Recipe
from .errors import Errors
from .recipes import Choice
from .trial import Trial, TrialInOrder

# Each with the estimator that serves it best for the time that it takes (benchmarks/NOTES.md): at 38,880 tokens level 1
# has a fifth less error by sampled_max, and the tail none.
TRIED = {"level 1": "sampled_max", "pyramid": "sub_block_mass", "tail": "sub_block_mass"}

# Densities that a head may take to keep to an error, each about 1.4 times the one before. At the first of a pair of
# densities all candidates are measured, and the best of them at the second: candidates that are good at one density
# are so at its neighbours, and measuring all of them everywhere would take as long as dense attention.
LADDER = {0.08: (0.04, 0.06, 0.08, 0.11), 0.22: (0.16, 0.22, 0.32, 0.45, 0.65, 1.0)}


def candidates(density: float, orders: tuple[str, ...]) -> tuple[Recipe, ...]:
    """The recipes of a density that are tried on every head."""
    return tuple(
        Recipe(order=order, estimator=estimator, mix=mix, density=density)
        for order in orders
        for mix, estimator in TRIED.items()
    )


@torch.no_grad()
def choose_recipes(trial: Trial) -> Choice:
    """The recipe of every head: the one of the least error at ``target_density``, or the cheapest that keeps to
    ``target_error``, or the most exact one where none does.

    Args:
        trial: of the call, whose config has the target.
    """
    density, error = trial.config.target_density, trial.config.target_error
    if error is not None:
        return _cheapest(trial, error)
    assert density is not None
    recipes = candidates(density, trial.orders)
    errors = _errors_of_all(trial, recipes)
    return _choice(recipes, errors, errors.relative().argmin(0))


def _cheapest(trial: Trial, target: float) -> Choice:
    # Those that have an order, and an estimator, in common stand together.
    tried = sorted(
        chain(*(candidates(anchor, trial.orders) for anchor in LADDER)),
        key=lambda recipe: (trial.orders.index(recipe.order), recipe.estimator),
    )
    errors_of_all = _errors_of_all(trial, tried).relative()
    recipes: list[Recipe] = []
    measured, numbers = [], []
    for anchor, densities in LADDER.items():
        at_anchor = tuple(i for i, recipe in enumerate(tried) if recipe.density == anchor)
        best = errors_of_all.index_select(0, constant(at_anchor, torch.int64, trial.q.device)).argmin(0)
        rungs = [candidates(density, trial.orders) for density in densities]
        measured.append(_errors_by_density(trial, best, rungs))
        for rung in rungs:
            numbers.append(best + len(recipes))
            recipes += rung
    errors = Errors.cat(measured)
    relative = errors.relative()
    keeps = relative <= target
    # The first that keeps to it; argmax takes the first of equals.
    first = torch.where(keeps.any(0), keeps.int().argmax(0), relative.argmin(0))
    return _choice(tuple(recipes), errors, first, torch.stack(numbers))


def _errors_of_all(trial: Trial, recipes: Sequence[Recipe]) -> Errors:
    """Errors of recipes, each of them on every head; those that have something in common stand together."""
    groups = [(order, list(group)) for order, group in groupby(recipes, lambda recipe: recipe.order)]
    trials = trial.in_orders([trial.one_order(order) for order, _ in groups])
    by_order = [group for _, group in groups]
    return trial.measured(lambda part: _errors([here.part(part) for here in trials], by_order))


def _errors(trials: Sequence[TrialInOrder], by_order: Sequence[Sequence[Recipe]]) -> Errors:
    """Errors of recipes in the order of each trial of a call."""
    trial = trials[0].trial
    estimators = dict.fromkeys(recipe.estimator for recipes in by_order for recipe in recipes)
    importance = {estimator: trial.importance(trials, estimator) for estimator in estimators}
    measured = []
    for i, (here, recipes) in enumerate(zip(trials, by_order, strict=True)):
        maps = [here.levels(importance[recipe.estimator][i], recipe.config(trial.config)) for recipe in recipes]
        measured.append(here.errors(maps))
    return Errors.cat(measured)


def _errors_by_density(trial: Trial, of_head: torch.Tensor, rungs: list[tuple[Recipe, ...]]) -> Errors:
    """Errors of each head's own recipe at several densities, which leave its order and its estimator as they are."""
    by_density = [trial.head_recipes(recipes, of_head, trial.blocks) for recipes in rungs]
    (whole,) = trial.in_orders([by_density[0].orders])

    def measure(part: Trial) -> Errors:
        here, own = whole.part(part), [recipes.part(part.chunk) for recipes in by_density]
        importance = here.importance_by_head(own[0])
        return here.errors([here.levels(importance, trial.config, recipes.quotas) for recipes in own])

    return trial.measured(measure)


def _choice(
    recipes: tuple[Recipe, ...], errors: Errors, measured: torch.Tensor, numbers: torch.Tensor | None = None
) -> Choice:
    """What was chosen: of what was measured, the number ``[B, H]``; ``numbers``: the recipe behind each, if not it."""
    at = measured[None]
    of_head = measured if numbers is None else numbers.gather(0, at)[0]
    return Choice(recipes, of_head, errors.relative().gather(0, at)[0], errors.spot(measured))
