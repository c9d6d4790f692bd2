"""PSA Report: what it shows of the last run, whichever samplers made it and whatever was cached."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

from ..client import PromptResult
from ..conftest import ComfyUI
from ..graphs import Graph, Link, Settings, single_pass, two_segments
from ..psa import SCHEDULE_WIDGETS, Line, chain, lines, picture, psa

LAYERS = 2
STEPS = 4
SETTINGS = Settings(steps=STEPS, cfg=1.0)
SAMPLERS = ("KSampler", "KSamplerAdvanced")


def reported(graph: Graph, model: Link | None = None, model_2: Link | None = None) -> str:
    """Add the node, fed by the last sampler, and what shows its text; its id."""
    if model is None:
        model = [graph.nodes_of("PSAAttentionPatch")[0], 0]
    (sampler,) = [node for name in SAMPLERS for node in graph.nodes_of(name)][-1:]
    inputs = {"model": model, "samples": [sampler, 0]} | ({} if model_2 is None else {"model_2": model_2})
    node, _ = graph.add("PSAReport", **inputs)
    graph.add("PreviewAny", source=[node, 1])
    graph.add("SaveImage", images=[node, 0], filename_prefix="psa_test/report")
    return node


def document(graph: Graph, result: PromptResult) -> dict[str, Any]:
    """The JSON that the node gave."""
    (shown,) = graph.nodes_of("PreviewAny")
    (text,) = result.outputs[shown]["text"]
    assert text.startswith('{\n  "line": ')
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def text_of(graph: Graph, result: PromptResult) -> str:
    """The last line on the patch node."""
    return result.lines[graph.nodes_of("PSAAttentionPatch")[0]]


def with_seed(graph: Graph, seed: int) -> Graph:
    """The same graph, of which the first sampler and what comes behind it have to run again."""
    other = copy.deepcopy(graph)
    for node in other.values():
        for key in node["inputs"].keys() & {"seed", "noise_seed"}:
            if node["class_type"] in SAMPLERS:
                node["inputs"][key] = seed
    return other


def counts(of: dict[str, Any] | Line) -> tuple[int, dict[str, int]]:
    """Calls that ran sparse, and reasons for dense ones."""
    if isinstance(of, Line):
        return of.sparse, dict(of.reasons)
    return len(of["sparse_calls"]), of["dense_calls"]


def check_document(parsed: dict[str, Any]) -> None:
    """Numbers that must fit each other."""
    shares = parsed["level_shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    cost = sum(share / int(level) for level, share in shares.items() if level != "skipped")
    assert cost == pytest.approx(parsed["density"], abs=1e-5)
    seconds = parsed["seconds"]
    assert set(seconds["dense"]) == set(parsed["dense_calls"])
    assert seconds["sparse"] + sum(seconds["dense"].values()) == pytest.approx(seconds["attention"])
    assert 0 < seconds["attention"] < seconds["model"] < 60


def test_it_shows_the_run(comfyui: ComfyUI) -> None:
    # 480 tokens are 15 blocks of 32: 3 at level 1, 3 at level 2, 6 at level 8.
    patch = psa(level_1=0.2, level_2=0.4, level_4=0.0, level_8=0.8, warmup_steps=1)
    graph = single_pass("wan_t2v", SETTINGS, patch)
    node = reported(graph)

    result = comfyui.client.run(graph)

    parsed = document(graph, result)
    assert parsed["line"] == text_of(graph, result)
    assert counts(parsed) == (3 * LAYERS, {"cross-attention": STEPS * LAYERS, "warm-up": LAYERS})
    assert [(call["step"], call["layer"]) for call in parsed["sparse_calls"]] == [
        (step, layer) for step in (1, 2, 3) for layer in range(LAYERS)
    ]
    shares = {"1": 3 / 15, "2": 3 / 15, "4": 0, "8": 6 / 15, "skipped": 3 / 15}
    assert parsed["level_shares"] == pytest.approx(shares, abs=1e-6)
    assert set(parsed["level_shares_by_step"]) == {"1", "2", "3"}
    assert "models" not in parsed
    check_document(parsed)
    drawn = picture(comfyui.server.address, result, node)
    assert drawn.width == 920
    (saved,) = comfyui.client.frames(result, graph.nodes_of("SaveImage")[0])
    np.testing.assert_array_equal((255 * saved).round(), np.asarray(drawn))


@pytest.mark.parametrize("host", ["cogvideox", "wan22_ti2v", "wan_vace"])
def test_other_models(comfyui: ComfyUI, host: str) -> None:
    graph = single_pass(host, Settings(steps=2), psa())
    reported(graph)

    result = comfyui.client.run(graph)

    parsed = document(graph, result)
    assert parsed["line"] == text_of(graph, result)
    assert parsed["sparse_calls"]
    assert parsed["seconds"]["sparse"] > 0


def test_segments_on_one_model_are_one_run(comfyui: ComfyUI) -> None:
    graph = two_segments("wan_t2v", SETTINGS, psa(warmup_steps=1), switch_step=2)
    reported(graph)

    result = comfyui.client.run(graph)

    first, second = lines(result, graph)
    parsed = document(graph, result)
    assert counts(parsed) == (first.sparse + second.sparse, dict(first.reasons + second.reasons))
    assert sorted({call["step"] for call in parsed["sparse_calls"]}) == [1, 2, 3]
    mean = (first.density * first.sparse + second.density * second.sparse) / (first.sparse + second.sparse)
    assert parsed["density"] == pytest.approx(mean, abs=6e-4)
    assert "models" not in parsed
    check_document(parsed)


def test_only_the_last_of_two_segments_runs_again(comfyui: ComfyUI) -> None:
    graph = two_segments("wan_t2v", SETTINGS, psa(), switch_step=1)
    reported(graph)
    comfyui.client.run(graph)
    again = copy.deepcopy(graph)
    again[graph.nodes_of("KSamplerAdvanced")[1]]["inputs"]["cfg"] = 1.5

    result = comfyui.client.run(again)

    (second,) = lines(result, again)
    assert counts(document(again, result)) == counts(second)


def test_two_experts(comfyui: ComfyUI) -> None:
    graph = two_segments(
        "wan22_i2v",
        SETTINGS,
        psa(warmup_steps=1),
        low_noise_host_name="wan22_i2v_low_noise",
        low_noise_patch=psa(warmup_steps=1, level_1=0.1),
        switch_step=2,
    )
    high, low = ([node, 0] for node in graph.nodes_of("PSAAttentionPatch"))
    node = reported(graph, high, low)

    result = comfyui.client.run(graph)

    parsed = document(graph, result)
    assert [model["line"] for model in parsed["models"]] == [result.lines[high[0]], result.lines[low[0]]]
    assert [{call["step"] for call in model["sparse_calls"]} for model in parsed["models"]] == [{1}, {2, 3}]
    assert counts(parsed) == (3 * LAYERS, {"cross-attention": STEPS * LAYERS, "warm-up": LAYERS})
    for part in (parsed, *parsed["models"]):
        check_document(part)
    assert parsed["models"][1]["density"] < parsed["density"] < parsed["models"][0]["density"]
    assert picture(comfyui.server.address, result, node).width == 920


def test_one_model_on_both_inputs_counts_once(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa())
    model = [graph.nodes_of("PSAAttentionPatch")[0], 0]
    reported(graph, model, model)

    result = comfyui.client.run(graph)

    parsed = document(graph, result)
    assert parsed["line"] == text_of(graph, result)
    assert "models" not in parsed


def test_another_seed_replaces_the_report(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa(mask_mode="thresholdbound"))
    reported(graph)
    documents = []
    for seed in (0, 1):
        result = comfyui.client.run(with_seed(graph, seed))
        assert (graph.nodes_of("PSAAttentionPatch")[0] in result.cached) == bool(seed)
        documents.append(document(graph, result))
        assert documents[-1]["line"] == text_of(graph, result)

    assert len(documents[0]["sparse_calls"]) == len(documents[1]["sparse_calls"]) == STEPS * LAYERS
    assert documents[0]["sparse_calls"] != documents[1]["sparse_calls"]


def test_a_run_from_the_cache_shows_what_it_showed(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa())
    node = reported(graph)
    first = comfyui.client.run(graph)

    again = comfyui.client.run(graph)

    assert {node, *graph.nodes_of("KSampler")} <= set(again.cached)
    assert document(graph, again) == document(graph, first)
    assert picture(comfyui.server.address, again, node) == picture(comfyui.server.address, first, node)


def test_a_node_added_later_shows_the_run_that_made_the_samples(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa(warmup_steps=2))
    before = text_of(graph, comfyui.client.run(graph))
    reported(graph)

    result = comfyui.client.run(graph)

    assert set(graph.nodes_of("KSampler")) <= set(result.cached)
    assert document(graph, result)["line"] == before


def test_a_clone_further_down_shares_the_report(comfyui: ComfyUI) -> None:
    def shift(graph: Graph, model: Link) -> Link:
        return graph.add("ModelSamplingSD3", model=model, shift=5.0)

    graph = single_pass("wan_t2v", SETTINGS, chain(psa(), shift))
    node = reported(graph, [graph.nodes_of("ModelSamplingSD3")[0], 0])
    first = document(graph, comfyui.client.run(graph))
    other = copy.deepcopy(graph)
    other[node]["inputs"]["model"] = [graph.nodes_of("PSAAttentionPatch")[0], 0]

    result = comfyui.client.run(other)

    assert set(graph.nodes_of("KSampler")) <= set(result.cached)
    assert document(other, result) == first


def test_two_patches_of_one_model_have_reports_of_their_own(comfyui: ComfyUI) -> None:
    def build(graph: Graph, model: Link) -> Link:
        psa(warmup_steps=STEPS)(graph, model)
        return psa()(graph, model)

    graph = single_pass("wan_t2v", SETTINGS, build)
    dense, sparse = ([node, 0] for node in graph.nodes_of("PSAAttentionPatch"))
    reported(graph, sparse)
    assert document(graph, comfyui.client.run(graph))["sparse_calls"]

    again = copy.deepcopy(graph)
    again[graph.nodes_of("PSAReport")[0]]["inputs"]["model"] = dense
    (note,) = document(again, comfyui.client.run(again))["notes"]
    assert "has not sampled yet" in note


def test_nothing_sparse_says_why(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa(min_tokens=100_000))
    node = reported(graph)

    result = comfyui.client.run(graph)

    parsed = document(graph, result)
    reason = "480 tokens are fewer than min_tokens = 100000"
    assert (parsed["density"], parsed["level_shares"], parsed["seconds"]["sparse"]) == (None, {}, None)
    assert parsed["dense_calls"] == {reason: STEPS * LAYERS, "cross-attention": STEPS * LAYERS}
    assert parsed["seconds"]["dense"][reason] > 0
    assert picture(comfyui.server.address, result, node).height < 400


def test_dense_steps_and_layers_of_a_schedule(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa(schedule=SCHEDULE_WIDGETS | {"last_dense": "1", "dense_layers": "1"}))
    reported(graph)

    parsed = document(graph, comfyui.client.run(graph))

    assert [(call["step"], call["layer"]) for call in parsed["sparse_calls"]] == [(0, 0), (1, 0), (2, 0)]
    assert parsed["dense_calls"]["last steps"] == LAYERS
    assert parsed["dense_calls"]["dense layer"] == STEPS - 1


def notes(comfyui: ComfyUI, graph: Graph) -> list[str]:
    """What the node says has no report, in a prompt that gives all its results."""
    result = comfyui.client.run(graph)
    assert torch.isfinite(comfyui.client.latent(result)).all()
    (saved,) = comfyui.client.frames(result, graph.nodes_of("SaveImage")[0])
    assert saved.shape[1] == 920
    parsed = document(graph, result)
    if not parsed.get("sparse_calls"):
        assert parsed["line"] == "PSA: nothing to report"
    found: list[str] = parsed["notes"]
    return found


@pytest.mark.parametrize("enabled", [None, False])
def test_an_unpatched_model_costs_no_result(comfyui: ComfyUI, enabled: bool | None) -> None:
    graph = single_pass("wan_t2v", SETTINGS, None if enabled is None else psa(enabled=enabled))
    name = "UNETLoader" if enabled is None else "PSAAttentionPatch"
    reported(graph, [graph.nodes_of(name)[0], 0])

    (note,) = notes(comfyui, graph)

    assert note.startswith("model (WAN21) is not patched: connect the MODEL that comes out of PSA Attention Patch")


def test_an_unpatched_second_model_is_named(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa())
    reported(graph, model_2=[graph.nodes_of("UNETLoader")[0], 0])

    (note,) = notes(comfyui, graph)

    assert note.startswith("model_2 (WAN21) is not patched")


def test_a_model_that_did_not_sample_costs_no_result(comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS)
    patched = psa()(graph, [graph.nodes_of("UNETLoader")[0], 0])
    reported(graph, patched)

    (note,) = notes(comfyui, graph)

    assert note.startswith("model (WAN21) has not sampled yet")


def test_without_matplotlib_it_says_what_to_install(odd_comfyui: ComfyUI) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa())
    reported(graph)

    (note,) = notes(odd_comfyui, graph)

    assert note.startswith("PSA Report: matplotlib cannot be imported: run `pip install -r require")
    assert document(graph, odd_comfyui.client.run(graph))["sparse_calls"]


def test_every_input_and_output_is_explained(comfyui: ComfyUI) -> None:
    info = comfyui.client.object_info("PSAReport")

    assert info is not None
    assert (info["output"], info["output_name"]) == (["IMAGE", "STRING"], ["picture", "report"])
    assert all(info["output_tooltips"])
    assert (list(info["input"]["required"]), list(info["input"]["optional"])) == (["model", "samples"], ["model_2"])
    specs = [*info["input"]["required"].values(), *info["input"]["optional"].values()]
    assert all(options["tooltip"] for _, options in specs)
    assert info["output_node"]
    assert info["description"]
    assert info["search_aliases"]
