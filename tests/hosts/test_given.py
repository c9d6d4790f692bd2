"""Calibrations that a model is given: what it cannot follow is refused before sampling."""

from __future__ import annotations

from typing import Any

import pytest

from psa_core import Calibration, ConfigError, PSAConfig, Recipe
from psa_core.hosts.given import check_given

RECIPE = Recipe(order="Raster", estimator="sampled_max", mix="level 1", density=0.15)
TWO_LAYERS = Calibration(
    block_m=128,
    block_n=128,
    recipes={0: [RECIPE] * 3, 1: [RECIPE] * 3},
    errors={0: [0.1] * 3, 1: [0.1] * 3},
    target_density=0.15,
)
CALIBRATED = PSAConfig(mask_mode="calibrated", target_density=0.15)


@pytest.mark.parametrize("layers", [2, None])
def test_what_fits_is_taken(layers: int | None) -> None:
    check_given(TWO_LAYERS, CALIBRATED, heads=3, layers=layers)


@pytest.mark.parametrize("layers", [2, None])
@pytest.mark.parametrize(
    ("changes", "heads", "told"),
    [
        ({}, 4, "heads = 4: the calibration has recipes for 3"),
        ({"block_n": 64}, 3, "block_n = 64: the calibration was made with 128"),
        (
            {"target_error": 0.1, "target_density": None},
            3,
            "target_error = 0.1: the calibration was made for a density",
        ),
        ({"mask_mode": "topk", "target_density": None}, 3, "mask_mode = 'topk': must be calibrated"),
    ],
)
def test_what_does_not_is_refused_also_where_the_number_of_layers_is_unknown(
    changes: dict[str, Any], heads: int, told: str, layers: int | None
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_given(TWO_LAYERS, CALIBRATED.replace(**changes), heads, layers)


def test_layers_without_recipes_are_refused() -> None:
    with pytest.raises(ConfigError, match="layer = 2: the calibration has recipes of 2 layers"):
        check_given(TWO_LAYERS, CALIBRATED, heads=3, layers=3)
