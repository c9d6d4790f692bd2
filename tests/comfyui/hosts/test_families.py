"""Each family: what of it runs sparse, what stays dense, and what every query sees at full resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from psa_core import RadialMask
from psa_core.masks.static import static_levels
from psa_core.ops.levels.rules import density

from ..conftest import ComfyUI
from ..families import CASES, Case, sampled
from ..graphs import Patch
from ..psa import LEVEL_1_ONLY, LEVEL_8_ONLY, chain, line, psa, relative_error
from .test_neighbours import node

STEPS = 2


def probed(comfyui: ComfyUI, case: Case, folder: Path, other: Patch | None = None) -> tuple[torch.Tensor, list[Any]]:
    """What is sampled at level 8, and where the video of each sparse call lay, with its level map."""
    path = folder / "calls.pt"
    patches = [psa(**LEVEL_8_ONLY, unknown_models="video"), node("PSATestProbe", path=str(path))]
    latent = comfyui.client.sample(sampled(case.family, chain(*([other] if other else []), *patches)))
    return latent, torch.load(path)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_videos_attention_runs_sparse_around_its_sinks(comfyui: ComfyUI, case: Case, tmp_path: Path) -> None:
    dense = comfyui.client.sample(sampled(case.family))
    graph = sampled(case.family, psa(**LEVEL_1_ONLY, unknown_models="video"))
    result = comfyui.client.run(graph)
    shown = line(result, graph)
    assert (shown.sparse, shown.reasons) == (
        STEPS * case.sparse, {reason: STEPS * count for reason, count in case.dense.items()}
    )  # fmt: skip
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4
    if not case.sparse:
        return

    latent, calls = probed(comfyui, case, tmp_path)
    assert torch.isfinite(latent).all()
    assert relative_error(latent, dense) > 1e-4
    expected = case.levels()
    assert len(calls) == STEPS * case.sparse
    for nth, call in enumerate(calls):
        # Those of a layer that have a part of the grid each follow one another.
        levels = expected[nth % len(expected)].expand_as(call["levels"])
        assert torch.equal(call["levels"], levels)
        assert case.parts or call["grid"] == case.grid
    again = sampled(case.family, psa(**LEVEL_8_ONLY, unknown_models="video"))
    assert torch.equal(comfyui.client.sample(again), latent)


@pytest.mark.parametrize("name", ["MiniMax H3, keyframe", "MiniMax H3, references"])
def test_newer_cores_hand_on_where_the_tokens_lie(comfyui: ComfyUI, tmp_path: Path, name: str) -> None:
    """To each call, and beside the prompt: both say the same. Where nobody says it, all before the video is dense."""
    case = CASES[name]
    latent, beside_the_prompt = probed(comfyui, case, tmp_path)
    (found, to_calls), (_, nobody), (_, stale) = (
        probed(comfyui, case, tmp_path, node("PSATestH3Layout", layout=layout))
        for layout in ("in options", "nowhere", "stale")
    )
    assert torch.equal(found, latent)
    for old, new, *without in zip(beside_the_prompt, to_calls, nobody, stale, strict=True):
        assert (new["step"], new["layer"], new["grid"], new["sinks"]) == (
            old["step"], old["layer"], case.grid, [tuple(sink) for sink in case.sinks]
        )  # fmt: skip
        assert torch.equal(new["levels"], old["levels"])
        assert [call["sinks"] for call in without] == [[(0, case.sinks[-1][1], True)]] * 2


@pytest.mark.parametrize("name", ["HunyuanVideo", "LTX-2", "MiniMax H3"])
def test_guidance_with_prompts_of_other_lengths(comfyui: ComfyUI, name: str) -> None:
    family = CASES[name].family
    dense = comfyui.client.sample(sampled(family, cfg=5.0, negative_tokens=9))
    graph = sampled(family, psa(**LEVEL_1_ONLY, unknown_models="video"), cfg=5.0, negative_tokens=9)
    result = comfyui.client.run(graph)
    shown = line(result, graph)
    assert shown.sparse == 2 * STEPS * CASES[name].sparse
    assert set(shown.reasons) == set(CASES[name].dense)
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4


@pytest.mark.parametrize("name", ["HunyuanVideo", "Kandinsky 5", "Wan, subjects", "Wan, SCAIL"])
def test_blocks_that_are_called_without_options(comfyui: ComfyUI, tmp_path: Path, name: str) -> None:
    """The first forward shows that no block is reached, whatever the prompt's own calls are; then all are, and without
    the model's word on where its tokens lie."""
    case, bare = CASES[name], node("PSATestBareBlocks")
    dense = comfyui.client.sample(sampled(case.family, bare))
    graph = sampled(case.family, chain(psa(**LEVEL_1_ONLY, unknown_models="video"), bare))
    result = comfyui.client.run(graph)
    assert line(result, graph).sparse == case.sparse
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4

    _, calls = probed(comfyui, case, tmp_path, bare)
    assert [(call["grid"], tuple(call["sinks"])) for call in calls] == [(case.grid, case.sinks)] * case.sparse


def test_blocks_that_nobody_reaches(comfyui: ComfyUI) -> None:
    """Where nothing but the prompt's own calls was seen, the line says so."""
    bare = node("PSATestBareBlocks")
    graph = sampled(CASES["HunyuanVideo"].family, chain(psa(unknown_models="video"), bare), steps=1)
    (text,) = [text for text in comfyui.client.run(graph).lines.values() if text.startswith("PSA")]
    assert text == "PSA: no attention call reached the pack; another node has replaced this model's attention"


@pytest.mark.parametrize("name", ["LTX-2", "MiniMax H3", "HunyuanVideo", "Kandinsky 5"])
def test_layers_are_those_of_the_video(comfyui: ComfyUI, name: str) -> None:
    case = CASES[name]
    graph = sampled(case.family, psa(schedule={"dense_layers": str(case.sparse - 1)}, unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse == STEPS * (case.sparse - 1)
    assert shown.reasons["dense layer"] == STEPS


def test_layers_are_numbered_without_those_that_guidance_leaves_out(comfyui: ComfyUI) -> None:
    """It runs the model once more in each step, and there the only call is the second layer's."""
    guidance = node("LTXVSpatioTemporalGuidance", scale=1.0, blocks="0", start_percent=0.0, end_percent=1.0)
    patch = psa(schedule={"dense_layers": "1"}, unknown_models="video")
    graph = sampled(CASES["LTX-2"].family, chain(guidance, patch))
    shown = line(comfyui.client.run(graph), graph)
    assert (shown.sparse, shown.reasons["dense layer"]) == (STEPS, 2 * STEPS)


def test_a_radial_mask_keeps_sinks_and_cuts_the_video(comfyui: ComfyUI) -> None:
    case = CASES["HunyuanVideo, reference"]
    graph = sampled(case.family, psa(mask={}, unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    mask = RadialMask(mode="radial only", decay_factor=0.2, block_size=8, model_type="cogvideox")
    expected = static_levels(mask, case.grid, 16 + 77, 128, 32)
    assert shown.sparse == STEPS * case.sparse
    assert shown.density == pytest.approx(float(density(expected)), abs=6e-4)
    assert float(density(expected)) < 0.9


@pytest.mark.parametrize("name", ["LTX-2", "HunyuanVideo", "Wan, contexts"])
def test_prompts_from_before_them_leave_them_as_they_were(comfyui: ComfyUI, name: str) -> None:
    graph = sampled(CASES[name].family, psa())
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse == 0
    last = (
        "not a Wan or CogVideoX model: unknown_models = video takes others too"
        if "Wan" not in name
        else "1056 tokens are not the grid 5 x 8 x 12 plus 0 of text"
    )
    assert last in shown.reasons
