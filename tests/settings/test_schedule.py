"""Schedules: what stays dense when, how mask_ratios move, and what is refused by name."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core import ConfigError, PSAConfig, RadialMask, Schedule
from psa_core.hosts.place import Place
from psa_core.hosts.reasons import PLACES, Call, first_reason
from psa_core.settings.at_step import ALL_STEPS, config_at, needs_steps, step_densities, warmups, window_steps
from psa_core.settings.mask_ratios import blend_mask_ratios, quota_density

from ..support.strategies import configs, ratio_tilings

START = {1: (0.0, 0.4), 2: (0.4, 0.5), 8: (0.5, 0.8), 0: (0.8, 1.0)}
END = {1: (0.0, 0.1), 4: (0.1, 0.3), 0: (0.3, 1.0)}

OUTSIDE = "outside the schedule's window"

step_counts = st.integers(1, 60)


def dense_reason(config: PSAConfig, step: int, steps: int | None, layer: int) -> str | None:
    """Why a call stays dense by its place alone."""
    place = Place(step, layer, None, steps=steps, in_window=window_steps(config, steps).has(step))
    return first_reason(PLACES, Call(config, "auto", place, 1, 1, 64, torch.float16, torch.device("cpu")))


def reasons(config: PSAConfig, steps: int, layer: int = 0) -> list[str | None]:
    return [dense_reason(config, step, steps, layer) for step in range(steps)]


class TestDense:
    @pytest.mark.parametrize(
        ("amount", "steps", "dense"),
        [(0, 10, 0), (3, 10, 3), ("3", 10, 3), (12, 10, 10), ("25%", 12, 3), ("25%", 30, 8), ("10%", 4, 1),
         ("0%", 9, 0), ("100%", 7, 7), ("33.3%", 3, 1), (" 50 % ", 8, 4)],
    )  # fmt: skip
    def test_numbers_and_shares_at_either_end(self, amount: int | str, steps: int, dense: int) -> None:
        first = PSAConfig(schedule=Schedule(warmup=amount))
        assert reasons(first, steps) == ["warm-up"] * dense + [None] * (steps - dense)
        last = PSAConfig(schedule=Schedule(last_dense=amount))
        assert reasons(last, steps) == [None] * (steps - dense) + ["last steps"] * dense

    def test_a_schedule_without_warmup_leaves_the_presets(self) -> None:
        config = PSAConfig(warmup_steps=2, schedule=Schedule(last_dense=1))
        assert reasons(config, 5) == ["warm-up", "warm-up", None, None, "last steps"]
        assert reasons(config.replace(schedule=Schedule(warmup=0)), 3) == [None] * 3

    @pytest.mark.parametrize(
        ("window", "inside"),
        [((0, 1), range(10)), ((0.3, 1), range(3, 10)), ((0, 0.7), range(7)), ((0.25, 0.71), range(3, 8)),
         ((0.51, 0.55), [])],
    )  # fmt: skip
    def test_window_by_share_of_the_steps_done(self, window: tuple[float, float], inside: Any) -> None:
        config = PSAConfig(schedule=Schedule(start_percent=window[0], end_percent=window[1]))
        assert [step for step in range(10) if window_steps(config, 10).has(step)] == list(inside)
        assert needs_steps(config) == (window != (0, 1))

    def test_sparse_only_where_steps_and_window_both_allow_it(self) -> None:
        config = PSAConfig(schedule=Schedule(warmup=3, last_dense=1, start_percent=0.2, end_percent=0.5))
        expected = ["warm-up"] * 3 + [None] * 2 + [OUTSIDE] * 4 + ["last steps"]
        assert reasons(config, 10) == expected

    def test_layers(self) -> None:
        config = PSAConfig(schedule=Schedule(dense_layers="0, 1, 38-39"))
        assert [layer for layer in range(60) if dense_reason(config, 0, 9, layer)] == [0, 1, 38, 39]
        assert dense_reason(config, 0, 9, 38) == "dense layer"

    def test_a_radial_mask_has_dense_steps_and_layers_of_its_own(self) -> None:
        radial = RadialMask(mode="intersect", dense_layers=2, dense_timesteps=3, last_dense_timesteps=1)
        config = PSAConfig(radial=radial, warmup_steps=1)
        assert reasons(config, 6, layer=2) == ["warm-up"] * 3 + [None, None, "last steps"]
        assert [layer for layer in range(4) if dense_reason(config, 4, 6, layer)] == [0, 1]
        assert reasons(config.replace(warmup_steps=4), 6, layer=2)[3] == "warm-up"

    @pytest.mark.parametrize("mode", ["radial only", "coarsen"])
    def test_a_mask_that_decides_alone_takes_the_presets_warmup_away(self, mode: str) -> None:
        config = PSAConfig(radial=RadialMask(mode=mode, dense_timesteps=2), warmup_steps=15)
        assert reasons(config, 20) == ["warm-up"] * 2 + [None] * 18
        assert reasons(config.replace(schedule=Schedule(warmup=5)), 20) == ["warm-up"] * 5 + [None] * 15

    def test_shares_are_of_the_steps_of_the_run(self) -> None:
        config = PSAConfig(warmup_steps="25%")
        assert [reasons(config, steps).count("warm-up") for steps in (4, 20, 50)] == [1, 5, 13]
        radial = RadialMask(mode="intersect", dense_timesteps="50%", last_dense_timesteps="12.5%")
        masked = reasons(config.replace(radial=radial), 8)
        assert masked == ["warm-up"] * 4 + [None] * 3 + ["last steps"]

    def test_the_longest_warmup_holds(self) -> None:
        """Of a number and a share, which that is depends on the number of steps."""
        config = PSAConfig(warmup_steps=6, radial=RadialMask(mode="intersect", dense_timesteps="25%"))
        assert [reasons(config, steps).count("warm-up") for steps in (8, 24, 40)] == [6, 6, 10]
        assert warmups(config) == {"preset": 6, "mask": "25%"}
        assert warmups(config.replace(schedule=Schedule(warmup=1))) == {"schedule": 1, "mask": "25%"}
        assert warmups(config.replace(radial=RadialMask(dense_timesteps=2))) == {"mask": 2}

    def test_a_share_that_does_not_count_needs_no_steps(self) -> None:
        assert not needs_steps(PSAConfig(warmup_steps="25%", schedule=Schedule(warmup=2)))
        assert not needs_steps(PSAConfig(warmup_steps="25%", radial=RadialMask()))

    def test_an_unknown_number_of_steps_does_for_a_warmup_in_numbers(self) -> None:
        config = PSAConfig(warmup_steps=2, schedule=Schedule(dense_layers=(4,)))
        assert not needs_steps(config)
        assert [dense_reason(config, step, None, 0) for step in range(3)] == ["warm-up", "warm-up", None]

    @pytest.mark.parametrize(
        "settings",
        [
            {"warmup_steps": "10%"},
            {"schedule": Schedule(warmup="10%")},
            {"radial": RadialMask(dense_timesteps="10%")},
            {"schedule": Schedule(last_dense=1)},
            {"schedule": Schedule(curve="linear", end=END)},
            {"schedule": Schedule(curve="timestep")},
            {"schedule": Schedule(start_percent=0.1)},
            {"mask_mode": "timestep"},
            {"radial": RadialMask(last_dense_timesteps=1)},
        ],
    )
    def test_what_needs_the_number_of_steps(self, settings: dict[str, Any]) -> None:
        assert needs_steps(PSAConfig(**settings))
        assert not needs_steps(PSAConfig())

    @hypothesis.given(configs(), step_counts, st.integers(0, 60))
    def test_dense_steps_stand_at_the_ends(self, config: PSAConfig, steps: int, layer: int) -> None:
        found = reasons(config, steps, layer)
        first = next((i for i, reason in enumerate(found) if reason != "warm-up"), steps)
        last = next((i for i, reason in enumerate(reversed(found)) if reason != "last steps"), steps)
        assert set(found[first : steps - last]) <= {None, OUTSIDE, "dense layer", "full-resolution step"}


class TestRatios:
    def test_no_schedule_changes_nothing(self) -> None:
        config = PSAConfig(mask_ratios=START)
        assert config_at(config, 3, 10) == config
        assert config_at(config.replace(schedule=Schedule(warmup=2)), 3, 10) == config

    def test_constant_stays_at_the_start(self) -> None:
        config = PSAConfig(schedule=Schedule(start=END, end=START))
        assert [dict(config_at(config, step, 9).mask_ratios) for step in (0, 8)] == [END, END]

    @pytest.mark.parametrize("curve", ["linear", "cosine"])
    def test_moves_over_the_sparse_steps(self, curve: str) -> None:
        config = PSAConfig(mask_ratios=START, schedule=Schedule(warmup=2, last_dense=3, curve=curve, end=END))
        first, last = (config_at(config, step, 10).mask_ratios for step in (2, 6))
        assert {level: bounds for level, bounds in first.items() if bounds[0] < bounds[1]} == START
        assert {level: bounds for level, bounds in last.items() if bounds[0] < bounds[1]} == END
        assert 0.1 < config_at(config, 4, 10).mask_ratios[1][1] < 0.4
        # Fewer steps are the same way in larger strides.
        assert config_at(config, 4, 8).mask_ratios == last

    def test_bounds_move_in_a_straight_line(self) -> None:
        config = PSAConfig(schedule=Schedule(curve="linear", start=START, end=END))
        bounds = [config_at(config, step, 5).mask_ratios for step in range(5)]
        assert [ratios[1][1] for ratios in bounds] == pytest.approx([0.4, 0.325, 0.25, 0.175, 0.1])
        # Level 4 opens between level 2, which closes, and level 8.
        assert [ratios[4] for ratios in bounds] == [
            pytest.approx(interval) for interval in [(0.5, 0.5), (0.4, 0.45), (0.3, 0.4), (0.2, 0.35), (0.1, 0.3)]
        ]
        assert [ratios[8][1] for ratios in bounds] == pytest.approx([0.8, 0.675, 0.55, 0.425, 0.3])

    def test_cosine_is_slow_at_both_ends(self) -> None:
        config = PSAConfig(schedule=Schedule(curve="cosine", start=START, end=END))
        bounds = [config_at(config, step, 5).mask_ratios[1][1] for step in range(5)]
        expected = [0.4 - 0.3 * (1 - math.cos(math.pi * step / 4)) / 2 for step in range(5)]
        assert bounds == pytest.approx(expected, abs=1e-6)

    def test_one_sparse_step_is_the_start(self) -> None:
        config = PSAConfig(mask_ratios=START, schedule=Schedule(warmup=4, curve="linear", end=END))
        assert config_at(config, 4, 5).levels == (1, 2, 8, 0)

    @pytest.mark.parametrize("of_config", [False, True])
    def test_timestep_gives_a_step_one_level(self, of_config: bool) -> None:
        schedule = None if of_config else Schedule(curve="timestep")
        config = PSAConfig(
            mask_ratios=START, mask_mode="timestep" if of_config else "thresholdbound", schedule=schedule
        )
        made = [config_at(config, step, 10) for step in range(10)]
        assert [dict(each.mask_ratios) for each in made] == [
            {level: (0.0, 1.0)} for level in (1, 1, 1, 1, 2, 8, 8, 8, 0, 0)
        ]
        assert {each.mask_mode for each in made} == {"topk"}

    def test_steps_at_full_resolution_are_the_models_own(self) -> None:
        config = PSAConfig(mask_ratios=START, mask_mode="timestep")
        assert reasons(config, 10) == ["full-resolution step"] * 4 + [None] * 6
        # A mask still cuts.
        assert reasons(config.replace(radial=RadialMask(mode="intersect")), 10) == [None] * 10

    @hypothesis.given(configs(), step_counts, st.data())
    def test_every_step_has_settings_of_its_own(self, config: PSAConfig, steps: int, data: st.DataObject) -> None:
        step = data.draw(st.integers(0, steps - 1))
        made = config_at(config, step, steps)
        assert made.schedule is None
        assert made.mask_mode != "timestep"
        by_step = "timestep" in (config.mask_mode, config.schedule and config.schedule.curve)
        assert made.map_steps == (1 if by_step else config.map_steps)
        changed = ("mask_ratios", "mask_mode", "target_density", "target_error", "early_density", "map_steps")
        assert made.replace(**{key: getattr(config, key) for key in changed}) == config.replace(schedule=None)

    @hypothesis.given(ratio_tilings(), ratio_tilings(), st.floats(0, 1))
    def test_between_two_sets_density_lies_between(self, start: dict, end: dict, progress: float) -> None:
        blended = PSAConfig(mask_ratios=blend_mask_ratios(start, end, progress)).mask_ratios
        ends = quota_density(start), quota_density(end)
        assert min(ends) - 1e-5 <= quota_density(blended) <= max(ends) + 1e-5
        assert quota_density(blended) == pytest.approx(ends[0] + (ends[1] - ends[0]) * progress, abs=1e-5)


class TestCalibrated:
    def test_mask_ratios_say_a_density(self) -> None:
        config = PSAConfig(mask_mode="calibrated", schedule=Schedule(start=START))
        made = config_at(config, 3, 10)
        assert (made.mask_mode, made.target_density) == ("calibrated", pytest.approx(0.4 + 0.05 + 0.3 / 8))
        assert made.mask_ratios == config.mask_ratios

    @hypothesis.given(ratio_tilings(), ratio_tilings(), st.sampled_from(["linear", "cosine"]), step_counts, st.data())
    def test_density_moves_as_that_of_mask_ratios(
        self, start: dict, end: dict, curve: str, steps: int, data: st.DataObject
    ) -> None:
        hypothesis.assume(quota_density(start) > 0 and quota_density(end) > 0)
        step = data.draw(st.integers(0, steps - 1))
        config = PSAConfig(mask_mode="topk", schedule=Schedule(curve=curve, start=start, end=end))
        density = config_at(config.replace(mask_mode="calibrated"), step, steps).target_density
        assert density == pytest.approx(quota_density(config_at(config, step, steps).mask_ratios), abs=1e-5)

    def test_what_a_schedule_leaves_out_is_the_target(self) -> None:
        config = PSAConfig(mask_mode="calibrated", target_density=0.3, schedule=Schedule(curve="linear", end=END))
        assert config_at(config, 0, 5).target_density == 0.3
        assert config_at(config, 4, 5).target_density == pytest.approx(0.15)
        both = config.replace(schedule=Schedule(curve="cosine"))
        assert {config_at(both, step, 5).target_density for step in range(5)} == {0.3}

    @pytest.mark.parametrize("target", [{"target_density": 0.2}, {"target_error": 0.1}])
    def test_a_level_for_a_whole_step_needs_no_recipe(self, target: dict[str, float]) -> None:
        config = PSAConfig(mask_mode="calibrated", schedule=Schedule(curve="timestep", start=START), **target)
        made = [config_at(config, step, 10) for step in range(10)]
        assert [next(iter(each.mask_ratios)) for each in made] == [1, 1, 1, 1, 2, 8, 8, 8, 0, 0]
        assert {each.mask_mode for each in made} == {"topk"}
        assert reasons(config, 10)[:5] == ["full-resolution step"] * 4 + [None]

    def test_dense_steps_and_layers_leave_the_target_alone(self) -> None:
        schedule = Schedule(warmup=2, last_dense=1, dense_layers="3", start_percent=0.1)
        config = PSAConfig(mask_mode="calibrated", target_error=0.1, schedule=schedule)
        assert config_at(config, 4, 10) == config.replace(schedule=None)

    @pytest.mark.parametrize("steps", [7, 20, 50])
    @pytest.mark.parametrize("map_steps", [1, 4, 60])
    @pytest.mark.parametrize("bounds", [(0, 1), (0.5, 1), (0.1, 0.8)], ids=str)
    def test_a_density_that_falls_has_the_mean_that_was_asked_for(
        self, bounds: tuple[float, float], steps: int, map_steps: int
    ) -> None:
        config = PSAConfig(
            mask_mode="calibrated", target_density=0.2, early_density=1.5, warmup_steps="25%", map_steps=map_steps,
            schedule=Schedule(start_percent=bounds[0], end_percent=bounds[1]),
        )  # fmt: skip
        assert needs_steps(config)
        window = window_steps(config, steps)
        assert (window == ALL_STEPS) == (bounds == (0, 1))
        sparse = [step for step in range(-(-steps // 4), steps) if window.has(step)]
        made_in = [step - (step - sparse[0]) % map_steps for step in sparse]
        densities = [config_at(config, step, steps, window).target_density for step in made_in]
        assert sum(densities) / len(densities) == pytest.approx(0.2)
        assert densities == sorted(densities, reverse=True)
        if map_steps == 1:
            assert (densities[0], densities[-1]) == (pytest.approx(0.3), pytest.approx(0.1))

    def test_where_a_density_does_not_fall(self) -> None:
        config = PSAConfig(mask_mode="calibrated", target_density=0.2, early_density=1.5)
        assert config_at(config, 0, 1).target_density == 0.2
        assert config_at(config.replace(schedule=Schedule(start=START)), 0, 9).target_density == pytest.approx(0.4875)
        assert config_at(config.replace(target_error=0.1), 0, 9).target_density is None
        most = [config_at(config.replace(target_density=0.9), step, 9).target_density for step in range(9)]
        assert (most[0], sum(most) / 9) == (pytest.approx(1.0), pytest.approx(0.9))

    @pytest.mark.parametrize(
        "schedule", [Schedule(start=START), Schedule(curve="linear", end=END), Schedule(curve="cosine", start=START)]
    )
    def test_an_error_and_a_schedule_of_densities_are_refused(self, schedule: Schedule) -> None:
        with pytest.raises(
            ConfigError, match=r"target_error = 0\.1: .*leave out its (start|end), or give target_density"
        ):
            PSAConfig(mask_mode="calibrated", target_error=0.1, schedule=schedule)

    def test_a_schedule_that_skips_everything_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"schedule\.end = .* must be above 0"):
            PSAConfig(mask_mode="calibrated", schedule=Schedule(curve="linear", end={0: (0, 1)}))
        # Of a constant one the end is not used.
        PSAConfig(mask_mode="calibrated", schedule=Schedule(end={0: (0, 1)}))


class TestPictureData:
    def test_densities(self) -> None:
        schedule = Schedule(warmup=1, last_dense="25%", curve="linear", start=START, end=END)
        densities = step_densities(schedule, 4)
        assert densities == [1.0, pytest.approx(0.4 + 0.05 + 0.3 / 8), pytest.approx(0.1 + 0.2 / 4), 1.0]

    def test_what_the_preset_decides_is_left_open(self) -> None:
        assert step_densities(Schedule(last_dense=1, dense_layers="0-3"), 3) == [None, None, 1.0]
        assert step_densities(Schedule(curve="linear", end=END), 2) == [None, None]
        assert step_densities(Schedule(curve="timestep", start={1: (0, 0.5), 8: (0.5, 1)}), 2) == [1.0, 0.125]


# Each with the key, the refused value and some words of what is allowed.
REFUSED: list[tuple[dict[str, Any], str, Any, str]] = [
    ({"warmup": -1}, "warmup", -1, "25%"),
    ({"warmup": 0.25}, "warmup", 0.25, "25%"),
    ({"warmup": "half"}, "warmup", "half", "25%"),
    ({"warmup": "120%"}, "warmup", "120%", "25%"),
    ({"warmup": "%"}, "warmup", "%", "25%"),
    ({"last_dense": "-3"}, "last_dense", "-3", "number of steps"),
    ({"last_dense": None}, "last_dense", None, "number of steps"),
    ({"last_dense": True}, "last_dense", True, "number of steps"),
    ({"dense_layers": "0, x"}, "dense_layers", "x", "0, 1, 38-39"),
    ({"dense_layers": "5-3"}, "dense_layers", "5-3", "from low to high"),
    ({"dense_layers": "0-99999999"}, "dense_layers", "0-99999999", "below 1000"),
    ({"dense_layers": "3-"}, "dense_layers", "3-", "0, 1, 38-39"),
    ({"dense_layers": 2}, "dense_layers", 2, "0, 1, 38-39"),
    ({"dense_layers": [0, -1]}, "dense_layers", -1, "0 or more"),
    ({"curve": "sine"}, "curve", "sine", "constant, linear, cosine, timestep"),
    ({"start": {1: (0.1, 1)}}, "start.1", [0.1, 1.0], "start at 0"),
    ({"end": {3: (0, 1)}}, "end", 3, "a level must be one of"),
    ({"steps": -1}, "steps", -1, "0 or more"),
    ({"steps": 20.0}, "steps", 20.0, "a whole number"),
    ({"start_step": 4}, "start_step", 4, "needs steps"),
    ({"steps": 4, "start_step": 4}, "start_step", 4, "below steps = 4"),
    ({"start_percent": -0.1}, "start_percent", -0.1, "from 0 to 1"),
    ({"end_percent": 100}, "end_percent", 100, "from 0 to 1"),
    ({"start_percent": 0.5, "end_percent": 0.5}, "start_percent", 0.5, "below end_percent = 0.5"),
]


@pytest.mark.parametrize(("settings", "key", "value", "allowed"), REFUSED)
def test_refusals_name_key_and_value(settings: dict[str, Any], key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule(**settings)
    assert (caught.value.key, caught.value.value) == (key, value)
    assert allowed in str(caught.value)
    with pytest.raises(ConfigError) as nested:
        PSAConfig(schedule=settings)  # type: ignore[arg-type]
    assert (nested.value.key, nested.value.value) == (f"schedule.{key}", value)


def test_levels_beyond_the_configs_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.end = 64: .*block_n is 32"):
        PSAConfig(block_n=32, schedule=Schedule(curve="linear", end={1: (0, 0.5), 64: (0.5, 1)}))


def test_unknown_keys_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.warm_up = 3: is unknown; there are warmup, last_dense"):
        PSAConfig(schedule={"warm_up": 3})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"schedule = 'linear': must be a mapping of Schedule's settings"):
        PSAConfig(schedule="linear")  # type: ignore[arg-type]
