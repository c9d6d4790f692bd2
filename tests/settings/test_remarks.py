"""What is said of settings before a run: of those that are as usual nothing."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from psa_core import PSAConfig, RadialMask, Schedule, load_presets
from psa_core.settings.at_step import dense_places
from psa_core.settings.presets import bundled_dir
from psa_core.settings.remarks import remarks

from ..support.strategies import configs

SKIPPED = {0: (0, 1)}
FALLS_APART = "all levels are 0: nearly everything is skipped, and the video falls apart; raise level 1"
ONE_LEVEL = "the schedule's curve is timestep, which gives all blocks of a step one level"
LATE = "5 of 20 steps run sparse (15 dense at the start); a warm-up of 30% would take 6"


@pytest.mark.parametrize(
    ("settings", "steps", "said"),
    [
        ({}, 1, []),
        # A sampler may be handed no steps at all.
        ({"warmup_steps": 15}, 0, []),
        ({"warmup_steps": 15}, 50, []),
        ({"warmup_steps": 15}, 30, []),
        ({"warmup_steps": 15}, 20, [LATE]),
        ({"warmup_steps": 15, "type": "dense"}, 20, []),
        # Whoever asks for a share of this run has seen it.
        ({"warmup_steps": "75%"}, 20, []),
        ({"warmup_steps": "100%"}, 20,
         ["none of 20 steps run sparse (20 dense at the start); a warm-up of 30% would take 6"]),
        ({"warmup_steps": 15}, 10,
         ["none of 10 steps run sparse (15 dense at the start); a warm-up of 30% would take 3"]),
        ({"warmup_steps": 1}, 1, ["none of 1 steps run sparse (1 dense at the start)"]),
        ({"warmup_steps": 4, "schedule": Schedule(last_dense=6)}, 10,
         ["none of 10 steps run sparse (4 dense at the start, 6 at the end); a warm-up of 30% would take 3"]),
        ({"schedule": Schedule(last_dense="100%")}, 10,
         ["none of 10 steps run sparse (0 dense at the start, 10 at the end)"]),
        ({"warmup_steps": 15, "schedule": Schedule(warmup="25%")}, 20,
         ["warm-up steps: the schedule's 5, not the preset's 15"]),
        ({"warmup_steps": 5, "schedule": Schedule(warmup="25%")}, 20, []),
        ({"warmup_steps": 15, "schedule": Schedule(warmup=0)}, 20,
         ["warm-up steps: the schedule's 0, not the preset's 15"]),
        ({"warmup_steps": 15, "radial": RadialMask(dense_timesteps=5)}, 20,
         ["warm-up steps: the mask's 5, not the preset's 15"]),
        ({"warmup_steps": 8, "radial": RadialMask(mode="intersect", dense_timesteps="10%")}, 20,
         ["warm-up steps: the preset's 8, not the mask's 2"]),
        ({"warmup_steps": 9, "schedule": Schedule(warmup=2), "radial": RadialMask(dense_timesteps=4)}, 20,
         ["warm-up steps: the mask's 4, not the preset's 9 and the schedule's 2"]),
        ({"warmup_steps": 0, "radial": RadialMask(dense_timesteps=5)}, 20, []),
        ({"mask_ratios": SKIPPED}, 20, [FALLS_APART]),
        ({"mask_ratios": SKIPPED, "schedule": Schedule(start={1: (0, 1)})}, 20, []),
        ({"schedule": Schedule(curve="linear", end=SKIPPED)}, 20,
         [FALLS_APART]),
        ({"mask_ratios": SKIPPED, "radial": RadialMask()}, 20, []),
        ({"mask_ratios": SKIPPED, "mask_mode": "calibrated"}, 20, []),
        ({"mask_ratios": SKIPPED, "mask_mode": "calibrated", "schedule": Schedule(curve="timestep")}, 20,
         [FALLS_APART, f"target_density = 0.15 has no effect: {ONE_LEVEL}"]),
        ({"mask_mode": "calibrated", "target_error": 0.1, "map_steps": 100}, 20, []),
        ({"mask_mode": "calibrated", "target_error": 0.1, "radial": RadialMask()}, 20,
         ["target_error = 0.1 has no effect: the mask decides alone (its mode is radial only)"]),
        ({"mask_mode": "calibrated", "target_density": 0.2, "radial": RadialMask(mode="intersect")}, 20, []),
        ({"map_steps": 19, "schedule": Schedule(curve="linear", end={1: (0, 1)})}, 20, []),
        ({"map_steps": 18, "schedule": Schedule(warmup=2, curve="cosine", end={1: (0, 1)})}, 20,
         ["the schedule's curve has no effect: map_steps = 18 keeps the first sparse step's maps"]),
        ({"map_steps": 18, "radial": RadialMask(), "schedule": Schedule(warmup=2, curve="cosine")}, 20, []),
        ({"schedule": Schedule(dense_layers="0, 28-31")}, 20,
         ["dense_layers 30, 31: the model has 30 layers, counted from 0"]),
        ({"schedule": Schedule(dense_layers="5-40"), "radial": RadialMask(dense_layers=5)}, 20,
         ["all 30 layers of the model are dense: nothing runs sparse"]),
    ],
)  # fmt: skip
def test_what_is_said(settings: dict[str, Any], steps: int, said: list[str]) -> None:
    assert remarks(PSAConfig(**settings), steps, layers=30) == said


def test_of_an_unknown_number_of_layers_nothing_is_said() -> None:
    assert remarks(PSAConfig(schedule=Schedule(dense_layers="30")), 20) == []


def test_bundled_presets_are_as_usual_in_their_own_steps() -> None:
    for presets in load_presets(bundled_dir()).values():
        for name, config in presets.items():
            assert remarks(config, 4 if "few" in name or "4steps" in name else 40, 30) == []


@hypothesis.given(configs(), st.integers(1, 60), st.integers(1, 60))
def test_runs_without_a_sparse_call_are_always_told(config: PSAConfig, steps: int, layers: int) -> None:
    places = dense_places(config, steps)
    by_step = not any(places.start <= step < places.stop for step in range(steps))
    by_layer = all(places.has_layer(layer) for layer in range(layers))
    if config.type == "psa" and (by_step or by_layer):
        assert any("none of " in line or "nothing runs sparse" in line for line in remarks(config, steps, layers))
