"""The dial of PSA Attention Patch: what each quality runs, and what comes before it."""

from __future__ import annotations

import pytest
import torch

from ..client import PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Settings, single_pass
from ..psa import by_name, line, psa, psa_default, remarks

MODEL = "Wan2.1_1.3b"
SETTINGS = Settings(steps=4, cfg=1.0)


@pytest.mark.parametrize("quality", ["fast", "balanced", "near_dense"])
def test_each_runs_its_preset_and_is_named(comfyui: ComfyUI, quality: str) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa_default(quality=quality))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert (shown.sparse, shown.reasons["warm-up"]) == (6, 2)
    assert remarks(result, graph) == [f"quality: {quality}"]
    assert result.said[0][1] == f"quality: {quality}"
    preset = comfyui.client.sample(single_pass("wan_t2v", SETTINGS, by_name(MODEL, f"auto_{quality}")))
    assert torch.equal(comfyui.client.latent(result), preset)


def test_preset_is_what_prompts_without_it_run(comfyui: ComfyUI) -> None:
    without, default = (
        comfyui.client.sample(single_pass("wan_t2v", Settings(steps=17, cfg=1.0), psa_default(**given)))
        for given in ({}, {"quality": "preset"})
    )
    assert torch.equal(default, without)


def test_a_preset_loader_comes_before_it_and_the_line_says_so(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa(quality="fast"))

    result = comfyui.client.run(graph)

    assert remarks(result, graph) == ["quality: that of the Preset Loader, not fast"]
    assert torch.equal(comfyui.client.latent(result), comfyui.client.sample(single_pass("wan_t2v", SETTINGS, psa())))
    graph = single_pass("wan_t2v", SETTINGS, psa(quality="preset"))
    assert remarks(comfyui.client.run(graph), graph) == []


def test_others_are_refused_before_anything_runs(comfyui: ComfyUI) -> None:
    with pytest.raises(PromptRejectedError, match=r"quality.*'best' not in \['fast', 'balanced', 'near_dense'"):
        comfyui.client.run(single_pass("wan_t2v", SETTINGS, psa_default(quality="best")))
