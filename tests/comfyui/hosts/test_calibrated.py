"""Calibration and kept level maps in ComfyUI: per layer and prompt, for one sampler call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ..client import PromptResult
from ..conftest import ComfyUI
from ..graphs import Graph, Link, Patch, Settings, single_pass, two_segments, with_reference
from ..psa import by_name, chain, line, lines, relative_error
from .test_composition import context_windows

MODEL = "Wan2.1_1.3b"
LAYERS, HEADS = 2, 2
USUAL = "type: psa, block_size: {m: 128, n: 32}, min_tokens: 0"
CALIBRATED = f"{USUAL}, mask_mode: calibrated"
# Maps of the one sparse step would serve the others, and are not those of the last step.
ONE_STEP = f"{USUAL}, mask_mode: topk, schedule: {{end_percent: 0.5}}"
FILE = f"""
{MODEL}:
  attention_configs:
    density: {{{CALIBRATED}, target_density: 0.3}}
    density_kept: {{{CALIBRATED}, target_density: 0.3, map_steps: 4}}
    error: {{{CALIBRATED}, target_error: 0.1, map_steps: 4}}
    window: {{{CALIBRATED}, target_density: 0.3, early_density: 1.5, schedule: {{end_percent: 0.5}}}}
    late: {{{CALIBRATED}, target_density: 0.3, map_steps: 4, warmup_steps: 1}}
    full: {{{CALIBRATED}, target_density: 1.0, map_steps: 4}}
    fixed_kept: {{{USUAL}, mask_mode: topk, map_steps: 4}}
    one_step: {{{ONE_STEP}}}
    one_step_kept: {{{ONE_STEP}, map_steps: 4}}
"""
TWO_STEPS = Settings(steps=2)
# Three windows, of which all but the first have a frame more, for the model's sake.
WINDOWED = Settings(latent=(13, 12, 16), steps=2)


@pytest.fixture(autouse=True)
def _presets(presets_folder: Path) -> None:
    (presets_folder / "calibrated.yaml").write_text(FILE)


def bare_blocks(graph: Graph, model: Link) -> Link:
    return graph.add("PSATestBareBlocks", model=model)


def preset(name: str) -> Patch:
    return by_name(MODEL, name)


def one_by_one(graph: Graph, model: Link) -> Link:
    return graph.add("PSATestOneByOne", model=model)


def reported(comfyui: ComfyUI, graph: Graph) -> tuple[PromptResult, dict[str, Any]]:
    """Run a graph with a PSA Report of all its patches; the report."""
    model, *second = ([node, 0] for node in graph.nodes_of("PSAAttentionPatch"))
    (saved,) = graph.nodes_of("SaveLatent")
    model_2 = {"model_2": second[0]} if second else {}
    node, _ = graph.add("PSAReport", model=model, samples=graph[saved]["inputs"]["samples"], **model_2)
    shown, _ = graph.add("PreviewAny", source=[node, 1])
    result = comfyui.client.run(graph)
    (text,) = result.outputs[shown]["text"]
    report = json.loads(text)
    # Which there are where the picture could not be drawn.
    assert "notes" not in report
    return result, report


def choosing(report: dict[str, Any]) -> dict[str, int]:
    """How many heads of each layer have chosen."""
    return {layer: sum(counts.values()) for layer, counts in report["calibrated"]["recipes"].items()}


@pytest.mark.parametrize(
    ("name", "steps", "cfg"),
    [
        ("density", 4, 1.0),
        ("density", 8, 5.0),
        ("error", 4, 5.0),
        ("error", 8, 1.0),
        ("late", 4, 1.0),
        ("late", 8, 5.0),
        ("fixed_kept", 8, 1.0),
    ],
)
def test_few_steps(comfyui: ComfyUI, name: str, steps: int, cfg: float) -> None:
    graph = single_pass("wan_t2v", Settings(steps=steps, cfg=cfg), preset(name))
    result, report = reported(comfyui, graph)

    dense = int(name == "late")
    sparse, shown = steps - dense, line(result, graph)
    assert (shown.sparse, shown.reasons["warm-up"]) == (LAYERS * sparse, LAYERS * dense)
    assert torch.isfinite(comfyui.client.latent(result)).all()
    if name == "density":
        assert "map_ages" not in report
    else:
        # Heads that choose anew have their map made anew.
        counts = {int(age): count for age, count in report["map_ages"].items()}
        assert sum(counts.values()) == shown.sparse
        assert set(counts) == set(range(min(sparse, 4)))
        assert counts[0] >= LAYERS * (1 + (sparse > 4))
    if name == "fixed_kept":
        assert "calibrated" not in report
        assert shown.error is None
        return
    # The prompt and its negative share recipes.
    assert choosing(report) == dict.fromkeys(("0", "1"), HEADS)
    assert 0 < report["calibrated"]["seconds"] < report["seconds"]["sparse"]
    measured = report["calibrated"]["measured_errors"]
    assert [x["step"] for x in measured if x["layer"] == 0] == [*range(dense + 2, steps - 1, 2), steps - 1]
    assert shown.error == pytest.approx(sum(x["error"] for x in measured) / len(measured), rel=0.06, abs=1e-4)
    assert shown.asked == (0.1 if name == "error" else None)


def test_what_a_window_leaves_sparse_has_the_density_and_its_error(comfyui: ComfyUI) -> None:
    _, report = reported(comfyui, single_pass("wan_t2v", Settings(steps=4, cfg=1.0), preset("window")))

    assert report["density"] == pytest.approx(0.3, abs=0.05)
    assert {x["step"] for x in report["calibrated"]["measured_errors"]} == {1}


@pytest.mark.parametrize(("host", "name"), [("wan_t2v", "error"), ("cogvideox", "density_kept")])
def test_the_same_seed_gives_the_same_bits_whatever_was_between(comfyui: ComfyUI, host: str, name: str) -> None:
    def broken_off(graph: Graph, model: Link) -> Link:
        return graph.add("PSATestBreakOff", model=model, kind="interrupt", step=2)

    settings = Settings(steps=4, cfg=1.0)
    first = comfyui.client.sample(single_pass(host, settings, preset(name)))
    failed = comfyui.client.run(single_pass(host, settings, chain(preset(name), broken_off)), check=False)
    assert failed.error is not None
    assert comfyui.client.get_json("/psa_test/kept") == {"maps": 0, "chosen": 0}
    assert torch.equal(comfyui.client.sample(single_pass(host, settings, preset(name))), first)
    other = Settings(steps=4, cfg=1.0, positive_tokens=8 if host == "wan_t2v" else None, seed=1)
    assert not torch.equal(comfyui.client.sample(single_pass(host, other, preset(name))), first)
    assert torch.equal(comfyui.client.sample(single_pass(host, settings, preset(name))), first)


@pytest.mark.parametrize(
    ("host", "settings", "other", "choices"),
    [
        ("wan_t2v", TWO_STEPS, None, {"0": 1, "1": 1}),
        # Prompts of different lengths run one after another.
        ("wan_t2v", Settings(steps=2, positive_tokens=8), None, {"0": 1, "1": 1}),
        ("wan_t2v", TWO_STEPS, one_by_one, {"0": 1, "1": 1}),
        ("wan_t2v", WINDOWED, context_windows, {"0": 2, "1": 2}),
        # Its own block and the model's first have one number.
        ("wan_vace", TWO_STEPS, None, {"0": 2, "1": 1}),
        # Where neither says which it is.
        ("wan_vace", TWO_STEPS, bare_blocks, {"0": 2, "1": 1}),
        ("cogvideox", TWO_STEPS, None, {"0": 1, "1": 1, "2": 1}),
    ],
)
def test_at_full_density_it_is_dense(
    comfyui: ComfyUI, host: str, settings: Settings, other: Patch | None, choices: dict[str, int]
) -> None:
    """`choices`: how often each layer's heads choose, those of each clip for themselves and for all its prompts."""
    dense = comfyui.client.sample(single_pass(host, settings, other))
    patches = [preset("full")] if other is None else [other, preset("full")]
    result, report = reported(comfyui, single_pass(host, settings, chain(*patches)))

    assert report["density"] == 1
    assert choosing(report) == {layer: HEADS * count for layer, count in choices.items()}
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4


@pytest.mark.parametrize(
    ("host", "settings", "other"),
    [
        ("wan_t2v", replace(WINDOWED, cfg=1.0), context_windows),
        ("wan_vace", replace(TWO_STEPS, cfg=1.0), None),
    ],
)
def test_a_kept_map_serves_no_other_call_of_its_step(
    comfyui: ComfyUI, host: str, settings: Settings, other: Patch | None
) -> None:
    def sample(name: str) -> torch.Tensor:
        patches = [preset(name)] if other is None else [other, preset(name)]
        return comfyui.client.sample(single_pass(host, settings, chain(*patches)))

    assert torch.equal(sample("one_step_kept"), sample("one_step"))


def test_frames_of_animate_2_share_recipes_and_have_maps_of_their_own(comfyui: ComfyUI) -> None:
    def animated(name: str = "", cache: bool = False) -> Graph:
        patches: list[Patch] = [by_name(MODEL, name, unknown_models="video")] if name else []
        if cache:
            patches.append(
                lambda graph, model: graph.add("WanAnimate2Cache", model=model, device="cpu", dtype="default")
            )
        graph = single_pass("wan_animate2", replace(TWO_STEPS, cfg=1.0), chain(*patches))
        return with_reference(graph, "pose_video_latent", (4, 16, 24))

    result, report = reported(comfyui, animated("full"))
    assert report["density"] == 1
    # For the pose video's own call and for a frame's.
    assert choosing(report) == {"0": 2 * HEADS, "1": 2 * HEADS}
    assert relative_error(comfyui.client.latent(result), comfyui.client.sample(animated())) < 1e-4

    assert torch.equal(comfyui.client.sample(animated("one_step_kept")), comfyui.client.sample(animated("one_step")))
    # From the cache, the pose's own calls are left out after the first step.
    kept = comfyui.client.sample(animated("fixed_kept"))
    assert relative_error(comfyui.client.sample(animated("fixed_kept", cache=True)), kept) < 1e-4


@pytest.mark.parametrize("name", ["density", "density_kept"])
def test_prompts_that_run_in_turn_give_what_they_give_together(comfyui: ComfyUI, name: str) -> None:
    settings = Settings(steps=3, cfg=5.0)
    together, in_turn = (
        comfyui.client.sample(single_pass("wan_t2v", settings, patch))
        for patch in (preset(name), chain(one_by_one, preset(name)))
    )
    assert relative_error(in_turn, together) < 1e-4


def test_two_experts_choose_for_themselves(comfyui: ComfyUI) -> None:
    experts = {"low_noise_host_name": "wan_t2v_low_noise", "low_noise_patch": preset("density_kept")}
    graph = two_segments("wan_t2v", Settings(steps=4), preset("density_kept"), **experts, switch_step=2)

    result, report = reported(comfyui, graph)

    assert [shown.sparse for shown in lines(result, graph)] == [2 * LAYERS] * 2
    # Of each in the last step that it has.
    assert all(shown.error is not None for shown in lines(result, graph))
    measured = [{x["step"] for x in model["calibrated"]["measured_errors"]} for model in report["models"]]
    assert measured == [{1}, {3}]
    assert [choosing(model) for model in report["models"]] == [{"0": HEADS, "1": HEADS}] * 2
    assert report["map_ages"] == {"0": 2 * LAYERS, "1": 2 * LAYERS}


def test_a_second_sampler_on_a_model_chooses_anew(comfyui: ComfyUI) -> None:
    graph = two_segments("wan_t2v", Settings(steps=4, cfg=1.0), preset("density_kept"), switch_step=1)

    _, report = reported(comfyui, graph)

    # Those of the second, which has its own.
    assert choosing(report) == {"0": HEADS, "1": HEADS}
    assert report["map_ages"] == {"0": 2 * LAYERS, "1": LAYERS, "2": LAYERS}


@pytest.mark.parametrize(("name", "blocks"), [("density_kept", False), ("fixed_kept", True)])
def test_compiled_it_is_as_without(comfyui: ComfyUI, name: str, blocks: bool) -> None:
    def compiled(graph: Graph, model: Link) -> Link:
        return graph.add("PSATestCompile", model=model, fullgraph=True, blocks=blocks)

    settings = Settings(steps=4, positive_tokens=8)
    eager, expected = reported(comfyui, single_pass("wan_t2v", settings, preset(name)))
    graph = single_pass("wan_t2v", settings, chain(preset(name), compiled))

    result, report = reported(comfyui, graph)

    assert report["map_ages"] == expected["map_ages"] == {str(age): 2 * LAYERS for age in range(4)}
    assert report["density"] == pytest.approx(expected["density"])
    assert relative_error(comfyui.client.latent(result), comfyui.client.latent(eager)) < 1e-4
