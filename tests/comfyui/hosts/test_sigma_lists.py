"""Sigmas given by hand: lists that rise, restart or hold a zero, and a distilled model's own in two samplers."""

from __future__ import annotations

from typing import Any

import pytest

from ..conftest import ComfyUI
from ..graphs import Graph, Link, given_sigmas, single_pass
from ..psa import chain, line, lines, psa
from .test_segments import LAYERS, STEPS, settings

LIGHTNING = [1.0, 0.9375, 0.8333, 0.625, 0.0]


@pytest.mark.parametrize(
    "sigmas",
    [[0.0, 0.3, 0.6, 1.0], [0.9, 0.5, 0.0, 0.0], [0.0, 0.9, 0.5, 0.0], [0.9, 0.5, 0.9, 0.5, 0.0]],
    ids=lambda sigmas: "-".join(map(str, sigmas)),
)
def test_steps_count_the_right_way_round(comfyui: ComfyUI, sigmas: list[float]) -> None:
    graph = given_sigmas("wan_t2v", sigmas, patch=psa(warmup_steps=1))

    found = line(comfyui.client.run(graph), graph)

    steps = len(sigmas) - 1
    assert (found.reasons["warm-up"], found.sparse) == (LAYERS, LAYERS * (steps - 1))


@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0])
def test_a_distilled_list_in_two_samplers(comfyui: ComfyUI, shift: float) -> None:
    def shifted(graph: Graph, model: Link) -> Link:
        return graph.add("ModelSamplingSD3", model=model, shift=shift)

    patch = chain(shifted, psa(warmup_steps=3))
    graph = given_sigmas("wan_t2v", LIGHTNING[:3], LIGHTNING[2:], patch=patch)

    first, second = lines(comfyui.client.run(graph), graph)

    assert (first.reasons["warm-up"], first.sparse) == (2 * LAYERS, 0)
    assert (second.reasons["warm-up"], second.sparse) == (1 * LAYERS, 1 * LAYERS)


@pytest.mark.parametrize("steps", [STEPS, 20])
def test_ddim_uniform_begins_at_its_first_step(comfyui: ComfyUI, steps: int) -> None:
    """It begins below the most noise that the model knows."""
    graph = single_pass("wan_t2v", settings("ddim_uniform"), psa(warmup_steps=1))
    sampler: dict[str, Any] = graph[graph.nodes_of("KSampler")[0]]["inputs"]
    sampler["steps"] = steps

    found = line(comfyui.client.run(graph), graph)

    assert found.reasons["warm-up"] == LAYERS
