"""Several GPUs: ComfyUI's split over prompts, and packs in which each GPU has some heads, or some of the tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from psa_core import Calibration, Recipe

from ..conftest import ComfyUI
from ..graphs import Graph, Link, Patch, Settings, single_pass
from ..psa import LEVEL_1_ONLY, LEVEL_8_ONLY, by_name, chain, line, psa, relative_error, remarks
from .test_calibrated import choosing, reported
from .test_neighbours import node

LAYERS, HEADS, V = 2, 2, 480
MODEL = "Wan2.1_1.3b"
GUIDED = Settings(steps=3, cfg=5.0)
ONE_PROMPT = Settings(steps=3, cfg=1.0)
FILE = f"""
{MODEL}:
  attention_configs:
    some: {{mask_mode: calibrated, target_density: 0.3, map_steps: 2, block_size: {{m: 128, n: 32}}, min_tokens: 0}}
    full: {{mask_mode: calibrated, target_density: 1.0, map_steps: 2, block_size: {{m: 128, n: 32}}, min_tokens: 0}}
"""
two_devices = node("PSATestTwoDevices")


@pytest.fixture
def folder(presets_folder: Path) -> Path:
    """Where calibrations are kept, beside presets of calibrated attention."""
    (presets_folder / "calibrated.yaml").write_text(FILE)
    return presets_folder / "calibrations"


def shards(of: str, parts: int = 2) -> Patch:
    return node("PSATestShards", of=of, parts=parts)


@pytest.mark.parametrize("psa_last", [True, False])
def test_prompts_on_two_devices(comfyui: ComfyUI, psa_last: bool) -> None:
    patch = psa(warmup_steps=1, **LEVEL_8_ONLY)
    patches = [two_devices, patch]
    alone = comfyui.client.sample(single_pass("wan_t2v", GUIDED, patch))
    graph = single_pass("wan_t2v", GUIDED, chain(*(patches if psa_last else reversed(patches))))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    # A call for each prompt.
    assert (shown.sparse, shown.reasons["warm-up"]) == (2 * 2 * LAYERS, 2 * LAYERS)
    assert shown.reasons["cross-attention"] == GUIDED.steps * 2 * LAYERS
    assert relative_error(comfyui.client.latent(result), alone) < 1e-4


def test_each_device_has_recipes_and_maps_of_its_own(comfyui: ComfyUI, folder: Path) -> None:
    dense = comfyui.client.sample(single_pass("wan_t2v", GUIDED))
    graph = single_pass("wan_t2v", GUIDED, chain(two_devices, by_name(MODEL, "full")))
    result, report = reported(comfyui, graph)
    assert line(result, graph).sparse == GUIDED.steps * 2 * LAYERS
    assert choosing(report) == dict.fromkeys(("0", "1"), 2 * HEADS)
    # Each has a map for two steps, and makes one anew for the third.
    assert report["map_ages"] == {"0": 2 * 2 * LAYERS, "1": 2 * LAYERS}
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4

    some = chain(two_devices, by_name(MODEL, "some"))
    first, again = (comfyui.client.sample(single_pass("wan_t2v", GUIDED, some)) for _ in range(2))
    assert torch.equal(first, again)


def test_a_run_on_two_devices_that_is_broken_off(comfyui: ComfyUI) -> None:
    patch = chain(two_devices, psa())
    before = comfyui.client.sample(single_pass("wan_t2v", GUIDED, patch))
    graph = single_pass("wan_t2v", GUIDED, chain(patch, node("PSATestBreakOff", kind="out of memory", step=1)))

    failed = comfyui.client.run(graph, check=False)

    assert failed.error is not None
    assert set(failed.lines.values()) == {""}
    assert torch.equal(comfyui.client.sample(single_pass("wan_t2v", GUIDED, patch)), before)


def test_a_forward_without_options_on_two_devices(comfyui: ComfyUI) -> None:
    """It does not matter which copy's first forward ends first; the other's may come upon the hooks on its way."""
    own = node("PSATestOwnForward")
    dense = comfyui.client.sample(single_pass("wan_t2v", GUIDED, own))
    graph = single_pass("wan_t2v", GUIDED, chain(own, two_devices, psa(**LEVEL_1_ONLY)))

    result = comfyui.client.run(graph)

    assert (GUIDED.steps - 1) * 2 * LAYERS <= line(result, graph).sparse < GUIDED.steps * 2 * LAYERS
    assert relative_error(comfyui.client.latent(result), dense) < 1e-4


def test_heads_in_parts_are_as_in_one_call(comfyui: ComfyUI) -> None:
    whole = comfyui.client.sample(single_pass("wan_t2v", ONE_PROMPT, psa(**LEVEL_8_ONLY)))
    graph = single_pass("wan_t2v", ONE_PROMPT, chain(shards("heads"), psa(**LEVEL_8_ONLY)))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert (shown.sparse, set(shown.reasons)) == (ONE_PROMPT.steps * LAYERS * 2, {"cross-attention"})
    assert relative_error(comfyui.client.latent(result), whole) < 1e-4


def test_heads_in_parts_choose_for_themselves_and_follow_no_others_recipes(comfyui: ComfyUI, folder: Path) -> None:
    def loaded(graph: Graph, model: Link) -> Link:
        patched = by_name(MODEL, "some")(graph, model)
        graph[patched[0]]["inputs"]["calibration"] = graph.add(
            "PSALoadCalibration", calibration="by_hand", otherwise="error"
        )
        return patched

    # No heads choose it.
    by_hand = Recipe(order="Raster", estimator="mean", mix="tail", density=0.3)
    recipes, errors = dict.fromkeys(range(LAYERS), [by_hand] * HEADS), dict.fromkeys(range(LAYERS), [0.1] * HEADS)
    fields = {"block_m": 128, "block_n": 32, "recipes": recipes, "errors": errors, "target_density": 0.3}
    Calibration(**fields).save(folder / "by_hand.yaml")
    graph = single_pass("wan_t2v", ONE_PROMPT, chain(shards("heads"), loaded))
    result, report = reported(comfyui, graph)

    assert choosing(report) == dict.fromkeys(("0", "1"), HEADS)
    assert by_hand.name not in {name for counts in report["calibrated"]["recipes"].values() for name in counts}
    (said,) = remarks(result, graph)
    assert said.startswith("measured anew: attention calls have 1 heads and the calibration 2")
    assert report["calibrated"]["remarks"] == [said]


def test_the_recipes_of_some_heads_are_not_saved_as_all(comfyui: ComfyUI, folder: Path) -> None:
    graph = single_pass("wan_t2v", ONE_PROMPT, chain(shards("heads"), by_name(MODEL, "some")))
    (patched,), (saved,) = graph.nodes_of("PSAAttentionPatch"), graph.nodes_of("SaveLatent")
    node_id, _ = graph.add(
        "PSASaveCalibration", model=[patched, 0], samples=graph[saved]["inputs"]["samples"], name="mine",
        overwrite=False,
    )  # fmt: skip

    result = comfyui.client.run(graph)

    assert result.lines[node_id] == (
        "Nothing saved: attention calls of model had 1 of its 2 heads, as where GPUs share them: calibrate on one GPU"
    )
    assert not (folder / "mine.yaml").exists()


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        ("queries", "a part of the video's queries, as where several GPUs share them"),
        ("tokens", f"{V // 2} tokens are not the grid 5 x 8 x 12 plus 0 of text"),
    ],
)
def test_tokens_in_parts_stay_dense(comfyui: ComfyUI, of: str, reason: str) -> None:
    dense = comfyui.client.sample(single_pass("wan_t2v", ONE_PROMPT, shards(of)))
    graph = single_pass("wan_t2v", ONE_PROMPT, chain(shards(of), psa()))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert (shown.sparse, shown.reasons[reason]) == (0, ONE_PROMPT.steps * LAYERS * 2)
    assert torch.equal(comfyui.client.latent(result), dense)
