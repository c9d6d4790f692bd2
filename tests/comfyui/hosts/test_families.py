"""Each family: what of it runs sparse, what stays dense, and what every query sees at full resolution."""

from __future__ import annotations

import pytest
import torch

from psa_core import RadialMask
from psa_core.masks.static import static_levels
from psa_core.ops.levels.rules import density

from ..conftest import ComfyUI
from ..families import CASES, Case, sampled
from ..psa import LEVEL_1_ONLY, line, psa, relative_error

STEPS = 2
LEVEL_8_ONLY = {"level_1": 0.0, "level_2": 0.0, "level_4": 0.0, "level_8": 1.0, "mask_mode": "topk"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_videos_attention_runs_sparse_around_its_sinks(comfyui: ComfyUI, case: Case) -> None:
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

    graph = sampled(case.family, psa(**LEVEL_8_ONLY, unknown_models="video"))
    result = comfyui.client.run(graph)
    latent = comfyui.client.latent(result)
    assert torch.isfinite(latent).all()
    assert relative_error(latent, dense) > 1e-4
    assert line(result, graph).density == pytest.approx(case.density, abs=6e-4)
    again = sampled(case.family, psa(**LEVEL_8_ONLY, unknown_models="video"))
    assert torch.equal(comfyui.client.sample(again), latent)


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


@pytest.mark.parametrize("name", ["LTX-2", "MiniMax H3", "HunyuanVideo", "Kandinsky 5"])
def test_layers_are_those_of_the_video(comfyui: ComfyUI, name: str) -> None:
    case = CASES[name]
    graph = sampled(case.family, psa(schedule={"dense_layers": str(case.sparse - 1)}, unknown_models="video"))
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse == STEPS * (case.sparse - 1)
    assert shown.reasons["dense layer"] == STEPS


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
        "not a Wan or CogVideoX model"
        if "Wan" not in name
        else "1056 tokens are not the grid 5 x 8 x 12 plus 0 of text"
    )
    assert last in shown.reasons
