"""Recipes: mixes come to the density that was asked for, and are settings that exist."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from psa_core import ConfigError, PSAConfig, Recipe
from psa_core.settings.mask_ratios import quota_density
from psa_core.settings.recipe import MIXES

from ..support.strategies import configs, recipes

BLOCK_N = st.sampled_from([32, 64, 128])


def recipe(mix: str, density: float) -> Recipe:
    return Recipe(order="Raster", estimator="mean", mix=mix, density=density)


@hypothesis.given(recipes(), BLOCK_N)
def test_a_mix_comes_to_its_density(any_recipe: Recipe, block_n: int) -> None:
    least = 1 / block_n if any_recipe.mix == "tail" else 0.0
    assert quota_density(any_recipe.mask_ratios(block_n)) == pytest.approx(max(any_recipe.density, least), abs=1e-12)


@hypothesis.given(recipes(), configs())
def test_a_recipe_changes_what_it_says_and_nothing_else(any_recipe: Recipe, base: PSAConfig) -> None:
    config = any_recipe.config(base)
    assert (config.mask_mode, config.importance) == ("topk", any_recipe.estimator)
    assert dict(config.mask_ratios) == any_recipe.mask_ratios(base.block_n)
    assert (config.rearrange_method if config.use_rearrange else "Raster") == any_recipe.order
    said = ("mask_mode", "mask_ratios", "importance", "use_rearrange", "rearrange_method")
    kept = {key: getattr(base, key) for key in (*said, "target_density", "target_error")}
    assert config.replace(**kept) == base


@hypothesis.given(st.lists(recipes(), min_size=1), BLOCK_N)
def test_a_calibrated_config_may_have_the_levels_of_every_recipe(some: list[Recipe], block_n: int) -> None:
    levels = PSAConfig(mask_mode="calibrated", block_n=block_n).levels
    assert {level for each in some for level in each.mask_ratios(block_n)} <= set(levels)
    assert levels == (1, 2, 8, block_n, 0)


@pytest.mark.parametrize("mix", MIXES)
def test_full_density_is_level_1_alone(mix: str) -> None:
    assert PSAConfig(mask_ratios=recipe(mix, 1.0).mask_ratios(128)).levels == (1,)


def test_a_pyramid_is_10_to_5_to_20_while_blocks_are_left_out() -> None:
    shares = {level: hi - lo for level, (lo, hi) in recipe("pyramid", 0.15).mask_ratios(128).items()}
    assert shares == pytest.approx({1: 0.1, 2: 0.05, 8: 0.2, 0: 0.65})


@pytest.mark.parametrize("above", [0.0, 1e-9])
def test_a_pyramid_has_no_step_where_nothing_is_left_out(above: float) -> None:
    ratios = recipe("pyramid", 3 / 7 + above).mask_ratios(128)
    assert {level: ratios[level] for level in (1, 2, 8)} == {
        1: pytest.approx((0, 2 / 7)), 2: pytest.approx((2 / 7, 3 / 7)), 8: pytest.approx((3 / 7, 1)),
    }  # fmt: skip


def test_a_dense_pyramid_shares_what_level_1_leaves() -> None:
    shares = {level: hi - lo for level, (lo, hi) in recipe("pyramid", 0.6).mask_ratios(128).items()}
    assert shares == pytest.approx({1: 0.5, 2: 0.1, 8: 0.4})


@pytest.mark.parametrize("block_n", [32, 64, 128])
def test_a_tail_keeps_a_row_of_every_other_block(block_n: int) -> None:
    shares = {level: hi - lo for level, (lo, hi) in recipe("tail", 0.2).mask_ratios(block_n).items()}
    full = (0.2 - 1 / block_n) / (1 - 1 / block_n)
    assert shares == pytest.approx({1: full, block_n: 1 - full})


@pytest.mark.parametrize(
    ("part", "value", "allowed"),
    [
        ("order", "Hilbert", "Raster, Gilbert, Tile"),
        ("order", None, "Raster, Gilbert, Tile"),
        ("estimator", "max", "sampled_max, sampled_sum, mean, sub_block_mass"),
        ("mix", "levels", "level 1, pyramid, tail"),
        ("density", 0.0, "above 0"),
        ("density", 1.01, "at most 1"),
        ("density", float("nan"), "above 0"),
        ("density", True, "number"),
        ("density", "0.1", "number"),
    ],
)
def test_refusals_name_the_part(part: str, value: Any, allowed: str) -> None:
    parts = {"order": "Gilbert", "estimator": "sampled_sum", "mix": "tail", "density": 0.15}
    with pytest.raises(ConfigError, match=rf"^{part} = .*{allowed}"):
        Recipe(**(parts | {part: value}))  # type: ignore[arg-type]
