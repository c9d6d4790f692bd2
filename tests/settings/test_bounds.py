"""Texts of strangers in widgets and files: what is beyond any model is refused in one line, and at once."""

from __future__ import annotations

import pytest

from psa_core import ConfigError, PSAConfig, RadialMask, Schedule

from ..support.little_work import little_work

HUGE = "9" * 5000
NUMBER = 10**5000


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (PSAConfig, {"warmup_steps": NUMBER}),
        (PSAConfig, {"warmup_steps": HUGE}),
        (PSAConfig, {"warmup_steps": HUGE + "%"}),
        (PSAConfig, {"min_tokens": NUMBER}),
        (PSAConfig, {"text_length": NUMBER}),
        (PSAConfig, {"tile_size": (NUMBER, 1, 1)}),
        (PSAConfig, {"mask_ratios": {NUMBER: (0, 1)}}),
        (PSAConfig, {"mask_ratios": {1: (0, NUMBER)}}),
        (PSAConfig, {"mask_mode": HUGE * 100}),
        (Schedule, {"warmup": HUGE}),
        (Schedule, {"steps": NUMBER}),
        (Schedule, {"start_percent": NUMBER}),
        (Schedule, {"dense_layers": HUGE}),
        (Schedule, {"dense_layers": f"1-{HUGE}"}),
        (Schedule, {"dense_layers": "0-999 " * 200_000}),
        (Schedule, {"dense_layers": [NUMBER]}),
        (RadialMask, {"decay_factor": NUMBER}),
        (RadialMask, {"block_size": NUMBER}),
        (RadialMask, {"dense_layers": NUMBER}),
        (RadialMask, {"dense_timesteps": HUGE}),
        (RadialMask, {"scene_boundaries": f"0, {HUGE}"}),
        (RadialMask, {"scene_boundaries": [0, NUMBER]}),
        (RadialMask, {"scene_boundaries": list(range(10_000))}),
        (RadialMask, {"scene_boundaries": "0, 1999901"}),
        (RadialMask, {"scene_boundaries": "0, 8, 16", "scene_adjacency": "[" * 100_000}),
        (RadialMask, {"scene_boundaries": "0, 8, 16", "scene_adjacency": f"[[{HUGE}, 1], [1, 1]]"}),
        (RadialMask, {"scene_boundaries": "0, 8, 16", "scene_adjacency": "1 1;" * 1_000_000}),
        (RadialMask, {"scene_boundaries": "0, 8, 16", "scene_adjacency": [[NUMBER, 1], [1, 1]]}),
    ],
)
def test_what_no_model_has_is_refused_at_once(kind: type, settings: dict) -> None:
    with little_work(), pytest.raises(ConfigError) as caught:
        kind(**settings)

    assert len(str(caught.value)) < 400


def test_what_models_have_is_allowed() -> None:
    schedule = Schedule(dense_layers=", ".join(map(str, range(1000))))
    scenes = ",".join(str(16 * scene) for scene in range(257))
    adjacency = "; ".join(" ".join("true" for _ in range(256)) for _ in range(256))

    assert schedule.dense_layers == tuple(range(1000))
    assert len(RadialMask(scene_boundaries=scenes, scene_adjacency=adjacency).scene_boundaries) == 257
