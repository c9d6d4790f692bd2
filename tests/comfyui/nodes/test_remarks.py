"""Remarks on settings stand on the patch node before a run's first step, and below its line when it has ended."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import ComfyUI
from ..graphs import Settings, single_pass, two_segments
from ..psa import MASK_WIDGETS, lines, psa, psa_default, remarks

LAYERS = 2
STEPS = 4
SETTINGS = Settings(steps=STEPS, cfg=1.0)
FEW = "1 of 4 steps run sparse (3 dense at the start); a warm-up of 30% would take 2"
NONE = "none of 4 steps run sparse (15 dense at the start); a warm-up of 30% would take 2"
SKIPPED = {"level_1": 0.0, "level_2": 0.0, "level_4": 0.0, "level_8": 0.0}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, []),
        ({"warmup_steps": "30%"}, []),
        ({"warmup_steps": 3}, [FEW]),
        ({"warmup_steps": 15}, [NONE]),
        ({"warmup_steps": 1, "schedule": {"last_dense": "3"}},
         ["none of 4 steps run sparse (1 dense at the start, 3 at the end)"]),
        ({"warmup_steps": 3, "schedule": {"warmup": "25%"}}, ["warm-up steps: the schedule's 1, not the preset's 3"]),
        ({"warmup_steps": 3, "mask": MASK_WIDGETS | {"dense_timesteps": 1}},
         ["warm-up steps: the mask's 1, not the preset's 3"]),
        ({"schedule": {"dense_layers": "0, 7"}}, ["dense_layers 7: the model has 2 layers, counted from 0"]),
        ({"schedule": {"dense_layers": "0-9"}}, ["all 2 layers of the model are dense: nothing runs sparse"]),
        (SKIPPED, ["all levels are 0: nearly everything is skipped, and the video falls apart; raise level 1"]),
        ({"attention": "dense", "warmup_steps": 15}, []),
    ],
)  # fmt: skip
def test_they_stand_there_before_and_after_the_run(
    comfyui: ComfyUI, settings: dict[str, Any], wanted: list[str]
) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa(**settings))
    log_start = len(comfyui.server.log_text())

    result = comfyui.client.run(graph)

    assert remarks(result, graph) == wanted
    assert result.said[0][1] == "\n".join(wanted)
    assert all(text.endswith("\n".join(wanted)) for _, text in result.said)
    assert all(f"PSA: {remark}" in comfyui.server.log_text()[log_start:] for remark in wanted)


@pytest.mark.parametrize("host", ["wan_t2v", "cogvideox"])
def test_the_default_preset_in_a_short_run(comfyui: ComfyUI, host: str) -> None:
    graph = single_pass(host, SETTINGS, psa_default())

    assert remarks(comfyui.client.run(graph), graph) == [NONE]


def test_a_part_of_the_denoising_is_judged_by_the_whole(comfyui: ComfyUI) -> None:
    graph = two_segments("wan_t2v", SETTINGS, psa(warmup_steps="50%"), switch_step=2)

    result = comfyui.client.run(graph)

    assert [line.sparse for line in lines(result, graph)] == [0, 2 * LAYERS]
    assert remarks(result, graph) == []


def test_of_a_run_that_is_broken_off_nothing_stays(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa(warmup_steps=3))
    breaking = graph.add("PSATestBreakOff", model=[graph.nodes_of("PSAAttentionPatch")[0], 0], kind="error", step=2)
    graph[graph.nodes_of("KSampler")[0]]["inputs"]["model"] = breaking

    result = comfyui.client.run(graph, check=False)

    assert result.error is not None
    assert set(result.lines.values()) == {""}
