"""``--schedule`` and ``--radial`` on a command line."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from psa_core import ConfigError, RadialMask, Schedule
from psa_core.apps.options import add_sparsity_options, read_sparsity_options


def read(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_sparsity_options(parser)
    return read_sparsity_options(parser.parse_args(words))


def test_left_out_they_are_none() -> None:
    assert read() == {"schedule": None, "radial": None}


def test_a_schedule() -> None:
    words = ("warmup=25%", "last_dense=10%", "dense_layers=0,1,38-39", "curve=linear", "end=0.1,0.15,0.15,0.4")
    assert read("--schedule", *words)["schedule"] == Schedule(
        warmup="25%",
        last_dense="10%",
        dense_layers=(0, 1, 38, 39),
        curve="linear",
        end={1: (0, 0.1), 2: (0.1, 0.15), 4: (0.15, 0.15), 8: (0.15, 0.4), 0: (0.4, 1)},
    )
    assert read("--schedule", "warmup=3")["schedule"] == Schedule(warmup=3)


def test_dense_steps_of_a_mask_are_numbers_or_shares() -> None:
    read_mask = read("--radial", "dense_timesteps=12.5%", "last_dense_timesteps=2")["radial"]
    assert read_mask == RadialMask(dense_timesteps="12.5%", last_dense_timesteps=2)
    with pytest.raises(ConfigError, match=r"--radial: dense_timesteps = 'soon': must be a number of steps such as 15"):
        read("--radial", "dense_timesteps=soon")


def test_a_radial_mask() -> None:
    words = ("mode=finer wins", "decay_factor=0.5", "dense_layers=2", "scene_boundaries=0,15,30,45")
    words = (*words, "scene_adjacency=1 1 0; 1 1 1; 0 1 1")
    assert read("--radial", *words)["radial"] == RadialMask(
        mode="finer wins",
        decay_factor=0.5,
        dense_layers=2,
        scene_boundaries=(0, 15, 30, 45),
        scene_adjacency=((True, True, False), (True, True, True), (False, True, True)),
    )
    assert read("--radial")["radial"] == RadialMask()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--schedule", "warmup"), r"--schedule = 'warmup': must be KEY=VALUE with a key of warmup, last_dense"),
        (("--schedule", "warm=3"), r"--schedule = 'warm=3': must be KEY=VALUE"),
        (("--schedule", "warmup=half"), r"--schedule: warmup = 'half': must be a number of steps"),
        (("--schedule", "end=0.1,0.2"), r"--schedule end = '0.1,0.2': must be four numbers"),
        (("--schedule", "end=0.1,0.2,x,1"), r"--schedule end = .*must be four numbers"),
        (("--schedule", "start=0.5,0.2,0.6,1"), r"--schedule start\.2 = 0\.2: must not be below"),
        (("--radial", "decay_factor=wide"), r"--radial decay_factor = 'wide': must be a number"),
        (("--radial", "dense_layers=1.5"), r"--radial dense_layers = '1\.5': must be a whole number"),
        (("--radial", "mode=narrow"), r"--radial: mode = 'narrow': must be one of radial only"),
        (("--radial", "scene_boundaries=0,x"), r"--radial: scene_boundaries = '0,x'.*'x' is not a whole number"),
    ],
)
def test_mistakes_are_named(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(*words)
