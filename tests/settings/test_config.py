"""Settings: what is accepted, what comes back, and what is refused by name."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from psa_core import ConfigError, PSAConfig
from psa_core.settings.mask_ratios import allowed_levels, bounds_from_mask_ratios, mask_ratios_from_bounds
from psa_core.settings.validation import FrozenMap
from psa_core.settings.words import shown

from ..support.strategies import configs, ratio_tilings


class TestRoundTrip:
    @hypothesis.given(configs())
    def test_copies_are_equal_and_hash_alike(self, config: PSAConfig) -> None:
        for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config), config.replace()):
            assert other == config
            assert hash(other) == hash(config)

    @hypothesis.given(configs(), configs())
    def test_different_settings_are_unequal(self, a: PSAConfig, b: PSAConfig) -> None:
        assert (a == b) == (repr(a) == repr(b))

    @hypothesis.given(ratio_tilings())
    def test_mask_ratios_come_in_pyramid_order(self, ratios: dict[int, tuple[float, float]]) -> None:
        held = PSAConfig(mask_ratios=ratios).mask_ratios
        assert dict(held) == ratios
        assert list(held) == [level for level in allowed_levels(128) if level in ratios]

    @hypothesis.given(ratio_tilings())
    def test_json_turns_levels_to_text_and_changes_nothing(self, ratios: dict[int, tuple[float, float]]) -> None:
        assert PSAConfig(mask_ratios=json.loads(json.dumps(ratios))) == PSAConfig(mask_ratios=ratios)

    @hypothesis.given(ratio_tilings())
    def test_levels_are_those_in_use_and_full_resolution(self, ratios: dict[int, tuple[float, float]]) -> None:
        used = {level for level, (lo, hi) in ratios.items() if lo < hi} | {1}
        assert PSAConfig(mask_ratios=ratios).levels == tuple(level for level in allowed_levels(128) if level in used)

    @hypothesis.given(st.dictionaries(st.sampled_from([1, 2, 4, 8]), st.floats(0.001, 1)))
    def test_bounds_and_ratios_are_inverse(self, bounds: dict[int, float]) -> None:
        bounds = dict(zip(sorted(bounds), sorted(bounds.values()), strict=True))
        ratios = mask_ratios_from_bounds(bounds)
        assert dict(PSAConfig(mask_ratios=ratios).mask_ratios) == ratios
        assert bounds_from_mask_ratios(ratios) == bounds


def test_defaults_are_allowed() -> None:
    assert PSAConfig() == PSAConfig(mask_ratios={1: (0, 0.4), 2: [0.4, 0.5], 4: (0.5, 0.6), 8: (0.6, 0.8), 0: (0.8, 1)})


def test_is_frozen_in_depth() -> None:
    source = {1: [0, 0.5], 0: [0.5, 1]}
    config = PSAConfig(mask_ratios=source)
    source[1][1] = 0.9
    assert config.mask_ratios[1] == (0.0, 0.5)
    with pytest.raises(AttributeError):
        config.block_n = 64  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.mask_ratios[1] = (0, 1)  # type: ignore[index]
    assert isinstance(config.mask_ratios, FrozenMap)


def test_replace_validates_again() -> None:
    with pytest.raises(ConfigError, match=r"mask_ratios = 128: .*block_n is 32"):
        PSAConfig(mask_ratios={1: (0, 0.5), 128: (0.5, 1)}).replace(block_n=32)


def test_left_out_thresholds_keep_their_defaults() -> None:
    assert dict(PSAConfig(sim_thresholds={"x4": 0.1}).sim_thresholds) == {"x2": 0.7, "x4": 0.1, "x8": 0.6}


def test_calibrated_without_a_target_means_a_density() -> None:
    config = PSAConfig(mask_mode="calibrated")
    assert (config.target_density, config.target_error) == (0.15, None)
    assert PSAConfig(mask_mode="calibrated", target_error=0.1).target_density is None


def test_a_target_goes_where_another_takes_its_place() -> None:
    config = PSAConfig(mask_mode="calibrated", target_density=0.2)
    exact = config.replace(target_error=0.1)
    assert (exact.target_density, exact.target_error) == (None, 0.1)
    assert exact.replace(target_density=0.2) == config.replace(verbose=False) == config
    assert config.replace(mask_mode="topk") == exact.replace(mask_mode="topk") == PSAConfig(mask_mode="topk")
    with pytest.raises(ConfigError, match="leave one of them out"):
        config.replace(target_error=0.1, target_density=0.2)
    with pytest.raises(ConfigError, match="needs mask_mode calibrated"):
        config.replace(mask_mode="topk", target_density=0.2)


def test_rounding_in_bounds_is_forgiven() -> None:
    config = PSAConfig(mask_ratios={1: (0, 0.1 + 0.2), 2: (0.3, 0.9999999)})
    assert config.levels == (1, 2)


# Each with the key, the refused value and some words of what is allowed, as the message must hold them.
REFUSED: list[tuple[dict[str, Any], str, Any, str]] = [
    ({"type": "sparse"}, "type", "sparse", "psa, dense"),
    ({"block_m": 32}, "block_m", 32, "64, 128"),
    ({"block_m": 128.0}, "block_m", 128.0, "64, 128"),
    ({"block_n": "64"}, "block_n", "64", "32, 64, 128"),
    ({"tile_n": 0}, "tile_n", 0, "1 or more"),
    ({"tile_n": True}, "tile_n", True, "whole number"),
    ({"mask_mode": "timestamp"}, "mask_mode", "timestamp", "thresholdbound, topk"),
    ({"mask_mode": "calibrated", "target_density": 0}, "target_density", 0, "above 0"),
    ({"mask_mode": "calibrated", "target_density": 1.5}, "target_density", 1.5, "at most 1"),
    ({"mask_mode": "calibrated", "target_error": "5%"}, "target_error", "5%", "number"),
    ({"mask_mode": "calibrated", "target_error": True}, "target_error", True, "number"),
    ({"mask_mode": "calibrated", "target_error": 0.1, "target_density": 0.2}, "target_error", 0.1, "leave one of them"),
    ({"target_density": 0.2}, "target_density", 0.2, "needs mask_mode calibrated, not thresholdbound"),
    ({"target_error": 0.2, "mask_mode": "topk"}, "target_error", 0.2, "needs mask_mode calibrated, not topk"),
    ({"map_steps": 0}, "map_steps", 0, "1 or more"),
    ({"map_steps": 1.0}, "map_steps", 1.0, "whole number"),
    ({"min_full_ratio": 1.01}, "min_full_ratio", 1.01, "from 0 to 1"),
    ({"min_full_ratio": "0.1"}, "min_full_ratio", "0.1", "number"),
    ({"importance": "max"}, "importance", "max", "sampled_max, sampled_sum, mean, sub_block_mass"),
    ({"use_sim_mask": 1}, "use_sim_mask", 1, "True, False"),
    ({"use_rearrange": "yes"}, "use_rearrange", "yes", "True, False"),
    ({"verbose": None}, "verbose", None, "True, False"),
    ({"sim_thresholds": [0.7]}, "sim_thresholds", [0.7], "x2, x4 and x8"),
    ({"sim_thresholds": {"x16": 0.7}}, "sim_thresholds", "x16", "x2, x4, x8"),
    ({"sim_thresholds": {"x2": 1.5}}, "sim_thresholds.x2", 1.5, "from -1 to 1"),
    ({"sim_thresholds": {"x8": None}}, "sim_thresholds.x8", None, "from -1 to 1"),
    ({"rearrange_method": "Hilbert"}, "rearrange_method", "Hilbert", "Gilbert, Tile, Rows, Columns, Semantic, Hybrid"),
    ({"early_density": 0.9}, "early_density", 0.9, "a number from 1 to 1.9"),
    ({"early_density": True}, "early_density", True, "a number from 1 to 1.9"),
    ({"candidate_orders": "Semantic"}, "candidate_orders", "Semantic", "list of one or more of Raster"),
    ({"candidate_orders": ()}, "candidate_orders", (), "list of one or more of Raster"),
    ({"candidate_orders": ["Gilbert", "Hilbert"]}, "candidate_orders", "Hilbert", "Raster, Gilbert, Tile"),
    ({"candidate_orders": [1]}, "candidate_orders", 1, "Raster, Gilbert, Tile"),
    ({"tile_size": [2, 8]}, "tile_size", [2, 8], "frames, height, width"),
    ({"tile_size": "288"}, "tile_size", "288", "frames, height, width"),
    ({"tile_size": {2, 8, 4}}, "tile_size", {2, 8, 4}, "frames, height, width"),
    ({"radial": {"reference_frames": (1,)}}, "radial.reference_frames", (1,), "before the clip and after it"),
    ({"radial": {"reference_frames": (0, -1)}}, "radial.reference_frames", -1, "0 or more"),
    ({"tile_size": 8}, "tile_size", 8, "frames, height, width"),
    ({"tile_size": (2, 0, 8)}, "tile_size", 0, "1 or more"),
    ({"warmup_steps": -1}, "warmup_steps", -1, "25%"),
    ({"warmup_steps": 1.5}, "warmup_steps", 1.5, "number of steps"),
    ({"warmup_steps": "101%"}, "warmup_steps", "101%", "25%"),
    ({"radial": {"dense_timesteps": "half"}}, "radial.dense_timesteps", "half", "25%"),
    ({"max_extra_memory": -1}, "max_extra_memory", -1, "a number from 0 to 4096"),
    ({"max_extra_memory": "2 GB"}, "max_extra_memory", "2 GB", "a number from 0 to 4096"),
    ({"max_extra_memory": False}, "max_extra_memory", False, "a number from 0 to 4096"),
    ({"min_tokens": None}, "min_tokens", None, "whole number"),
    ({"text_length": "226"}, "text_length", "226", "whole number"),
    ({"attn_impl": "fast"}, "attn_impl", "fast", "new_mask_type, old_mask_type"),
    ({"description": 7}, "description", 7, "text"),
    ({"mask_ratios": {}}, "mask_ratios", {}, "levels to intervals"),
    ({"mask_ratios": [0, 1]}, "mask_ratios", [0, 1], "levels to intervals"),
    ({"mask_ratios": {3: (0, 1)}}, "mask_ratios", 3, "1, 2, 4, 8, 16, 32, 64, 128, 0"),
    ({"mask_ratios": {64: (0, 1)}, "block_n": 32}, "mask_ratios", 64, "block_n is 32"),
    ({"mask_ratios": {True: (0, 1)}}, "mask_ratios", True, "a level must be one of"),
    ({"mask_ratios": {"one": (0, 1)}}, "mask_ratios", "one", "a level must be one of"),
    ({"mask_ratios": {"-1": (0, 1)}}, "mask_ratios", "-1", "a level must be one of"),
    ({"mask_ratios": {1: (0, 1), "1": (0, 1)}}, "mask_ratios", "1", "given twice"),
    ({"mask_ratios": {1: 1.0}}, "mask_ratios.1", 1.0, "[lo, hi]"),
    ({"mask_ratios": {1: (0, 0.5, 1)}}, "mask_ratios.1", (0, 0.5, 1), "[lo, hi]"),
    ({"mask_ratios": {1: "01"}}, "mask_ratios.1", "01", "[lo, hi]"),
    ({"mask_ratios": {1: (0, 1.5)}}, "mask_ratios.1", 1.5, "from 0 to 1"),
    ({"mask_ratios": {1: (0, float("inf"))}}, "mask_ratios.1", float("inf"), "from 0 to 1"),
    ({"mask_ratios": {1: (0, None)}}, "mask_ratios.1", None, "from 0 to 1"),
    ({"mask_ratios": {1: {0: "a", 1: "b"}}}, "mask_ratios.1", {0: "a", 1: "b"}, "[lo, hi]"),
    ({"mask_ratios": {1: (0.1, 1)}}, "mask_ratios.1", [0.1, 1.0], "start at 0"),
    ({"mask_ratios": {1: (0, 0.5), 2: (0.6, 1)}}, "mask_ratios.2", [0.6, 1.0], "start at 0.5"),
    ({"mask_ratios": {1: (0, 0.5), 2: (0.4, 1)}}, "mask_ratios.2", [0.4, 1.0], "start at 0.5"),
    ({"mask_ratios": {0: (0, 0.5), 1: (0.5, 1)}}, "mask_ratios.1", [0.5, 1.0], "start at 0"),
    ({"mask_ratios": {1: (0, 0.5), 2: (0.5, 0.4), 0: (0.4, 1)}}, "mask_ratios.2", [0.5, 0.4], "upper bound"),
    ({"mask_ratios": {1: (0, 0.5), 0: (0.5, 0.9)}}, "mask_ratios.0", [0.5, 0.9], "end at 1"),
]


@pytest.mark.parametrize(("settings", "key", "value", "allowed"), REFUSED)
def test_refusals_name_key_value_and_what_is_allowed(
    settings: Mapping[str, Any], key: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        PSAConfig(**settings)
    error = caught.value
    assert (error.key, error.value, error.source) == (key, value, "")
    assert str(error).startswith(f"{key} = {shown(value)}: ")
    assert allowed in str(error)


@pytest.mark.parametrize(
    "bad",
    [
        {"min_full_ratio": float("nan")},
        {"mask_ratios": {1: (0, float("nan"))}},
        {"mask_mode": "calibrated", "target_density": float("nan")},
        {"mask_mode": "calibrated", "target_error": float("nan")},
    ],
)
def test_not_a_number_is_refused(bad: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"from 0 to 1|above 0, and at most 1"):
        PSAConfig(**bad)


def test_falling_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mask_ratios\.4 = 0\.3: must not be below the finer level's bound 0\.5"):
        mask_ratios_from_bounds({1: 0.4, 2: 0.5, 4: 0.3})


def test_errors_keep_their_parts_through_pickle_and_say_where() -> None:
    error = ConfigError("block_n", 7, "must be one of 32, 64, 128").at("file.yaml: model: preset")
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error) == "file.yaml: model: preset: block_n = 7: must be one of 32, 64, 128"
    assert (copied.key, copied.value, copied.allowed, copied.source) == (
        "block_n", 7, "must be one of 32, 64, 128", "file.yaml: model: preset",
    )  # fmt: skip
