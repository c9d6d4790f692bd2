"""Our op with every fixed recipe, with recipes that were chosen, and with level maps of earlier steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, product

import torch

from psa_core.apps.bench.checks import error_from_levels, poison_free_memory
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.results import Row
from psa_core.apps.bench.timing import Contender
from psa_core.attention.choose import TRIED, choose_recipes
from psa_core.attention.level_map import LevelMap
from psa_core.attention.recipes import Choice
from psa_core.attention.steps import Attended, sparse_attention, trial_of
from psa_core.ops.backends import choose_backend
from psa_core.ops.reorder import Orders
from psa_core.settings.config import IMPORTANCE_ESTIMATORS, PSAConfig
from psa_core.settings.orders import DEFAULT_CANDIDATE_ORDERS, ORDERS_BY_CONTENT, SEMANTIC
from psa_core.settings.recipe import MIXES, Recipe

from .heads import Heads

PART = "frontier"
CHOOSING = "choosing"
BEST_POSSIBLE = "best recipe of each call and head"
CALIBRATED, IN_CALL = "calibrated", "calibrated in the call"
WITH_SEMANTIC = "calibrated, Semantic among its orders"
BASE = PSAConfig(block_m=128, block_n=128, min_tokens=0)
# Map ages that are measured: of map_steps = 4.
MAP_STEPS = 4
# In which kept maps are measured as well, and the error from which their results are wrong: what quantisation adds.
PRECISIONS, _ADDED = ("int8", "int8+fp8", "auto"), 0.04


@dataclass(frozen=True)
class Entrant:
    """One setting.

    Attributes:
        contender: what is checked and timed, on the first of the later steps; a row where that cannot be.
        output: of a step by its number, ``[1, H, L, D]``.
        steps: those to measure the error on; None for all later ones.
        fixed: whether it is one recipe for all heads.
    """

    contender: Contender | Row
    output: Callable[[int], torch.Tensor] = field(repr=False)
    steps: range | None = None
    fixed: bool = False


def recipe_name(recipe: Recipe) -> str:
    """A recipe without its density."""
    return f"{recipe.order}, {recipe.estimator}, {recipe.mix}"


# Upstream's, and that of this pack's presets.
PRESET = recipe_name(Recipe(order="Gilbert", estimator="sampled_max", mix="pyramid", density=1.0))


def fixed_recipes(density: float) -> list[Recipe]:
    """All that every head may have alike, among them those that heads choose from.

    Those in an order by content have the clustering, from nothing, in the time of every call.
    """
    by_place = product(DEFAULT_CANDIDATE_ORDERS, IMPORTANCE_ESTIMATORS, MIXES)
    by_content = ((order, estimator, mix) for order in ORDERS_BY_CONTENT for mix, estimator in TRIED.items())
    parts = chain(by_place, by_content)
    return [Recipe(order=order, estimator=name, mix=mix, density=density) for order, name, mix in parts]


FIXED = tuple(recipe_name(recipe) for recipe in fixed_recipes(1.0))
FIXED_BY_CONTENT = tuple(recipe_name(recipe) for recipe in fixed_recipes(1.0) if recipe.order in ORDERS_BY_CONTENT)


def map_name(age: int, attention: str = CALIBRATED) -> str:
    """Calibrated, with a map that is given and was made so many steps before."""
    return f"{attention}, map of {age} steps before"


def precision_name(precision: str) -> str:
    """Calibrated, with a map that is given, in another precision than bf16."""
    return f"{map_name(0)}, {precision}"


def our_entrants(heads: Heads, density: float) -> Iterator[Entrant]:
    """Fixed recipes; calibrated with recipes that were chosen before, or in the call; maps of earlier steps."""
    for recipe in fixed_recipes(density):
        yield _entrant(heads, recipe_name(recipe), density, _attend(heads, recipe.config(BASE)), fixed=True)
    config = BASE.replace(mask_mode="calibrated", target_density=density)
    yield from _calibrated(heads, density, config, CALIBRATED)
    yield _entrant(heads, IN_CALL, density, _attend(heads, config))
    more = config.replace(candidate_orders=(*config.candidate_orders, SEMANTIC))
    yield from _calibrated(heads, density, more, WITH_SEMANTIC)


def choose(heads: Heads, config: PSAConfig) -> Choice:
    """The recipe of every head, by its errors in the first step."""
    return choose_recipes(trial_of(*heads.steps[0], config, heads.case.grid, (), None, _backend(heads)))


def chosen_line(heads: Heads, density: float) -> str:
    """How many heads take which recipe, for people."""
    choice = choose(heads, BASE.replace(mask_mode="calibrated", target_density=density))
    counts = Counter(recipe_name(choice.recipes[number]) for number in choice.of_head.flatten().tolist())
    chosen = "; ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{heads.case.name}, density {density:g}, heads that chose: {chosen}"


def choosing(heads: Heads, density: float) -> Contender:
    """The choice alone."""
    config = BASE.replace(mask_mode="calibrated", target_density=density)
    row = Row.of(PART, heads.case, CALIBRATED, density=density, block_n=config.block_n, stage=CHOOSING)
    return Contender(row, lambda: choose(heads, config))


def _attend(
    heads: Heads,
    config: PSAConfig,
    choice: Choice | None = None,
    level_map: LevelMap | None = None,
    exact_heads: torch.Tensor | None = None,
) -> Callable[[int], Attended]:
    """One call of the op in a step."""

    def attend(step: int) -> Attended:
        q, k, v = heads.steps[step]
        kept = choice, level_map, exact_heads
        return sparse_attention(q, k, v, config, heads.case.grid, (), None, _backend(heads), *kept)

    return attend


def _calibrated(heads: Heads, density: float, config: PSAConfig, name: str) -> Iterator[Entrant]:
    """With recipes that were chosen before; then over maps that are given, all at one step, so that their ages alone
    differ."""
    choice = choose(heads, config)
    attend = _attend(heads, config, choice)
    yield _entrant(heads, name, density, attend)
    last = min(MAP_STEPS, len(heads.steps)) - 1
    for age in range(last + 1):
        kept = _attend(heads, config, choice, attend(last - age).level_map)
        yield _entrant(heads, map_name(age, name), density, kept, range(last, last + 1))
    if name != CALIBRATED:
        return
    level_map = attend(last).level_map
    for precision in PRECISIONS:
        quantised = config.replace(precision=precision)
        # As a run has it, which measures once what to leave out.
        exact_heads = _attend(heads, quantised, choice, level_map)(last).exact_heads
        kept = _attend(heads, quantised, choice, level_map, exact_heads)
        yield _entrant(heads, precision_name(precision), density, kept, range(last, last + 1), bound=_ADDED)


def _entrant(
    heads: Heads,
    name: str,
    density: float,
    attend: Callable[[int], Attended],
    steps: range | None = None,
    fixed: bool = False,
    bound: float = Contender.bound,
) -> Entrant:
    timed = (steps or heads.later)[0]

    def error() -> float:
        poison_free_memory(heads.steps[timed].q)
        attended = attend(timed)
        assert attended.level_map is not None
        return _error_from_map(attended.out, heads.steps[timed], attended.level_map)

    reached = float(attend(timed).info().density)
    row = Row.of(PART, heads.case, name, density=density, block_n=BASE.block_n, reached_density=reached)
    contender = Contender(row, lambda: attend(timed), error=error, bound=bound)
    return Entrant(contender, lambda step: attend(step).out, steps, fixed)


def _error_from_map(out: torch.Tensor, inputs: Inputs, level_map: LevelMap) -> float:
    """Relative error of the last head against float32 in plain torch on the same map."""
    levels, orders = level_map.levels[:, -1:], level_map.orders
    if orders is None:
        return error_from_levels(out, inputs, levels, BASE.block_n)
    last = _of_last_head(orders)
    taken = Inputs(*last.take_call(*(x[:, -1:] for x in inputs)))
    return error_from_levels((last.of_queries or last).take(out[:, -1:]), taken, levels, BASE.block_n)


def _of_last_head(orders: Orders) -> Orders:
    of_queries = None if orders.of_queries is None else _of_last_head(orders.of_queries)
    return Orders(orders.index, orders.of_head[:, -1:], of_queries)


def _backend(heads: Heads) -> str:
    return choose_backend("auto", *heads.steps[0])
