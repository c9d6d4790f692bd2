"""Models of no family that the pack knows: what of them runs sparse, and what does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from ..conftest import ComfyUI
from ..families import Family, sampled
from ..families.hunyuan_video import HUNYUAN_VIDEO
from ..families.ltx import LTX_VIDEO
from ..psa import LEVEL_1_ONLY, line, psa, psa_default, relative_error, remarks

SOMEBODYS = {"image_model": "somebodys"}
# One double and two single blocks; two blocks of the text's own come before them.
JOINT = Family(HUNYUAN_VIDEO, ((1, 16, 5, 16, 24),), more=SOMEBODYS)
# Text in calls of its own, and heads of 64.
CROSS = Family(LTX_VIDEO, ((1, 128, 5, 6, 8),), mask="ones", more=SOMEBODYS)
PROMPTS_OWN = "attention within the prompt"


@pytest.mark.parametrize(("family", "sparse"), [(JOINT, 2 * 3), (CROSS, 2 * 2)], ids=["joint", "cross"])
def test_self_attention_runs_sparse_as_its_tokens_lie(comfyui: ComfyUI, family: Family, sparse: int) -> None:
    dense = comfyui.client.sample(sampled(family))
    graph = sampled(family, psa(**LEVEL_1_ONLY, unknown_models="video"))
    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert (shown.sparse, set(shown.reasons)) == (sparse, {PROMPTS_OWN if family is JOINT else "cross-attention"})
    assert remarks(result, graph) == ["not a model that the pack knows: tokens in the order they have, no static masks"]
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4

    other = comfyui.client.sample(sampled(family, psa(unknown_models="video")))
    assert torch.isfinite(other).all()
    assert relative_error(other, dense) > 1e-3


def test_prompts_from_before_it_leave_it_dense(comfyui: ComfyUI) -> None:
    graph = sampled(CROSS, psa())
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse == 0
    assert set(shown.reasons) == {"not a Wan or CogVideoX model: unknown_models = video takes others too"}


def test_the_dial_and_min_tokens_of_the_preset(comfyui: ComfyUI) -> None:
    graph = sampled(CROSS, psa_default(quality="fast", unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse > 0
    graph = sampled(CROSS, psa_default(min_tokens=0, quality="fast", unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    assert set(shown.reasons) == {"cross-attention", "240 tokens are fewer than min_tokens = 8192"}


def test_no_file_is_saved_that_no_run_could_load(comfyui: ComfyUI, presets_folder: Path) -> None:
    graph = sampled(CROSS, psa_default(quality="fast", unknown_models="video"))
    (patch,), (saved,) = graph.nodes_of("PSAAttentionPatch"), graph.nodes_of("SaveLatent")
    samples = graph[saved]["inputs"]["samples"]
    node, _ = graph.add("PSASaveCalibration", model=[patch, 0], samples=samples, name="mine", overwrite=False)
    said = comfyui.client.run(graph).lines[node]
    assert said == "Nothing saved: the layers of model are not known, and a calibration is for those of a known model"
    assert not (presets_folder / "calibrations").exists()


@pytest.mark.parametrize(("unknown_models", "sparse"), [("video", 0), ("all", 6)])
def test_images_are_for_all(comfyui: ComfyUI, unknown_models: str, sparse: int) -> None:
    image = dataclasses.replace(JOINT, latent=((1, 16, 1, 24, 24),))
    graph = sampled(image, psa(unknown_models=unknown_models))
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse == sparse
    left = {} if sparse else {"an image: unknown_models = all takes images too": 6}
    assert shown.reasons == {PROMPTS_OWN: 4, **left}


@pytest.mark.parametrize(("mask", "sparse"), [("ones", 6), ("holes", 0)])
def test_a_mask_that_masks_nothing_is_none(comfyui: ComfyUI, mask: str, sparse: int) -> None:
    masked = dataclasses.replace(JOINT, mask=mask)
    graph = sampled(masked, psa(**LEVEL_1_ONLY, unknown_models="video"))
    result = comfyui.client.run(graph)
    shown = line(result, graph)
    assert shown.sparse == sparse
    assert set(shown.reasons) == {PROMPTS_OWN} | (set() if sparse else {"attention mask"})
    assert relative_error(comfyui.client.latent(result), comfyui.client.sample(sampled(masked))) < 1e-4


def test_a_schedule_counts_its_steps(comfyui: ComfyUI) -> None:
    graph = sampled(CROSS, psa(schedule={"steps": 4, "start_step": 2, "warmup": "3"}, unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    assert (shown.sparse, shown.reasons) == (2, {"cross-attention": 4, "warm-up": 2})


def test_a_mask_alone_needs_a_grid(comfyui: ComfyUI) -> None:
    graph = sampled(CROSS, psa(mask={}, unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    assert set(shown.reasons) == {"cross-attention", "a mask, and the video's grid is unknown"}
