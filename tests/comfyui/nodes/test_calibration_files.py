"""Save Calibration and Load Calibration: a run's recipes serve others, and neither node costs a result."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from psa_core import Calibration, Recipe

from ..browser import CHOOSE, EXPORT, SELECT, VALUES
from ..client import PromptFailedError, PromptRejectedError, PromptResult
from ..conftest import ComfyUI
from ..graphs import Graph, Link, Patch, Settings, single_pass, two_segments
from ..psa import PRESET_NUMBERS, listed, psa

MODEL = "Wan2.1_1.3b"
LAYERS, HEADS, GRID = 2, 2, (5, 8, 12)
FILE = f"""
{MODEL}:
  attention_configs:
    density: {{mask_mode: calibrated, target_density: 0.3, block_size: {{m: 128, n: 32}}}}
    error: {{mask_mode: calibrated, target_error: 0.2, block_size: {{m: 128, n: 32}}}}
    topk: {{mask_mode: topk, block_size: {{m: 128, n: 32}}}}
"""
ONE_PROMPT = Settings(steps=2, cfg=1.0)
# No heads choose it.
BY_HAND = Recipe(order="Raster", estimator="mean", mix="tail", density=0.3)
LOAD_API = """async (graph) => {
    await app.loadApiJson(graph, 'test');
    await app.loadGraphData(app.graph.serialize());
}"""
QUEUE = "() => app.queuePrompt(0)"
SAID = "() => window.psaNode.psaSaid.line"
CHOICES = "() => [...window.psaNode.widgets.find((w) => w.name === 'calibration').options.values]"


@pytest.fixture
def folder(presets_folder: Path) -> Path:
    """Where calibrations are kept; it is not there yet."""
    (presets_folder / "calibrated.yaml").write_text(FILE)
    return presets_folder / "calibrations"


def patched(preset: str = "density", name: str | None = None, otherwise: str = "error", **numbers: Any) -> Patch:
    """PSA Attention Patch with a preset, behind a Load Calibration where one is named."""

    def patch(graph: Graph, model: Link) -> Link:
        links = {"preset": graph.add("PSAPresetLoader", **({"model": MODEL, "preset": preset} | numbers))}
        if name is not None:
            links["calibration"] = graph.add("PSALoadCalibration", calibration=name, otherwise=otherwise)
        return graph.add("PSAAttentionPatch", model=model, enabled=True, backend="torch", min_tokens=1, **links)

    return patch


def saving(graph: Graph, name: str = "mine", overwrite: bool = False) -> Graph:
    """The graph with a Save Calibration of all its patches behind the last sampler."""
    models = {
        key: [node, 0] for key, node in zip(("model", "model_2"), graph.nodes_of("PSAAttentionPatch"), strict=False)
    }
    (saved,) = graph.nodes_of("SaveLatent")
    graph.add("PSASaveCalibration", **models, samples=graph[saved]["inputs"]["samples"], name=name, overwrite=overwrite)
    return graph


def said(graph: Graph, result: PromptResult, node_type: str = "PSASaveCalibration") -> list[str]:
    """The lines on the node."""
    (node,) = graph.nodes_of(node_type)
    return result.lines[node].split("\n")


def run(comfyui: ComfyUI, **save: Any) -> tuple[Graph, PromptResult]:
    graph = saving(single_pass("wan_t2v", ONE_PROMPT, patched()), **save)
    return graph, comfyui.client.run(graph)


def by_hand(**changes: Any) -> Calibration:
    """A calibration that fits, but for some fields."""
    recipes, errors = dict.fromkeys(range(LAYERS), [BY_HAND] * HEADS), dict.fromkeys(range(LAYERS), [0.1] * HEADS)
    fields = {"block_m": 128, "block_n": 32, "recipes": recipes, "errors": errors, "target_density": 0.3}
    return Calibration(**(fields | changes))


def taken(comfyui: ComfyUI, graph: Graph) -> list[dict[str, dict[str, int]]]:
    """The recipes that the heads of each patch had, as PSA Report tells."""
    (saved,) = graph.nodes_of("SaveLatent")
    models = [[node, 0] for node in graph.nodes_of("PSAAttentionPatch")]
    shown = []
    for model in models:
        node, _ = graph.add("PSAReport", model=model, samples=graph[saved]["inputs"]["samples"])
        shown.append(graph.add("PreviewAny", source=[node, 1])[0])
    result = comfyui.client.run(graph)
    return [json.loads(result.outputs[node]["text"][0])["calibrated"]["recipes"] for node in shown]


def of_all(calibration: Calibration) -> dict[str, dict[str, int]]:
    """How many heads of each layer have which recipe."""
    return {
        str(layer): {recipe.name: list(recipes).count(recipe) for recipe in recipes}
        for layer, recipes in calibration.recipes.items()
    }


def test_what_a_run_has_measured_gives_others_the_same_video(comfyui: ComfyUI, folder: Path) -> None:
    graph, first = run(comfyui)

    heads = f"{LAYERS} layers of {HEADS} heads of {MODEL}"
    where = 'Saved "mine" in psa_presets/calibrations/mine.yaml'
    assert said(graph, first) == [f"{where}: {heads}; Load Calibration lists it"]
    calibration = Calibration.load(folder / "mine.yaml")
    assert (calibration.model, calibration.grid, calibration.target_density) == (MODEL, GRID, 0.3)
    # Presets are listed as before, and the calibration is.
    answer = listed(comfyui.server.address)
    assert (answer["errors"], answer["calibrations"]) == ([], ["mine"])
    info = comfyui.client.object_info("PSALoadCalibration")
    assert info is not None
    assert "mine" in json.dumps(info["input"]["required"]["calibration"])

    graph = saving(single_pass("wan_t2v", ONE_PROMPT, patched(name="mine")), "again")
    second = comfyui.client.run(graph)
    assert torch.equal(comfyui.client.latent(second), comfyui.client.latent(first))
    nothing = "Nothing saved: model has measured nothing: its recipes come from a Load Calibration"
    assert said(graph, second) == [nothing]

    # A file that is another by now is read anew.
    dataclasses.replace(calibration, recipes=by_hand().recipes).save(folder / "mine.yaml")
    graph = single_pass("wan_t2v", ONE_PROMPT, patched(name="mine"))
    assert taken(comfyui, graph) == [of_all(by_hand())]


def test_two_experts_have_one_each(comfyui: ComfyUI, folder: Path) -> None:
    settings, experts = Settings(steps=4, cfg=1.0), {"low_noise_host_name": "wan_t2v_low_noise"}
    graph = saving(two_segments("wan_t2v", settings, patched(), low_noise_patch=patched(), **experts))

    lines = said(graph, comfyui.client.run(graph))

    assert [line.split(" in ")[0] for line in lines] == ['Saved "mine"', 'Saved "mine_2"']
    by_hand().save(folder / "mine_2.yaml")
    patches = patched(name="mine"), patched(name="mine_2")
    graph = two_segments("wan_t2v", settings, patches[0], low_noise_patch=patches[1], **experts)
    assert taken(comfyui, graph) == [of_all(Calibration.load(folder / f"{name}.yaml")) for name in ("mine", "mine_2")]


def test_nothing_is_overwritten_unless_it_is_asked_for(comfyui: ComfyUI, folder: Path) -> None:
    run(comfyui)
    graph, result = run(comfyui)
    assert said(graph, result) == ['"mine" has these recipes already']
    file = by_hand().save(folder / "mine.yaml")

    graph, result = run(comfyui)

    assert said(graph, result)[0].startswith("Nothing saved: Save Calibration: name = 'mine': there is another")
    assert torch.isfinite(comfyui.client.latent(result)).all()
    assert Calibration.load(file) == by_hand()
    graph, result = run(comfyui, overwrite=True)
    assert said(graph, result)[0].startswith('Saved "mine" in')
    assert Calibration.load(file) != by_hand()
    assert [path.name for path in folder.glob("[!.]*")] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (patched("topk"), "Save Calibration: mask_mode = 'topk': must be calibrated"),
        (psa(enabled=False), "model (WAN21) is not patched: connect the MODEL that comes out of PSA Attention Patch"),
    ],
)
def test_where_nothing_was_measured_it_says_so(comfyui: ComfyUI, folder: Path, patch: Patch, words: str) -> None:
    graph = saving(single_pass("wan_t2v", ONE_PROMPT, patch))

    result = comfyui.client.run(graph)

    assert said(graph, result)[0].startswith(f"Nothing saved: {words}")
    assert torch.isfinite(comfyui.client.latent(result)).all()
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_costs_no_result(comfyui: ComfyUI, folder: Path) -> None:
    folder.write_text("a file")
    graph, result = run(comfyui)
    assert "cannot be written" in said(graph, result)[0]
    assert torch.isfinite(comfyui.client.latent(result)).all()


@pytest.mark.parametrize("name", ["", "a/b", "..", "../mine", "a\\b", "nul"])
def test_names_that_are_none_for_files_are_refused_before_anything_runs(
    comfyui: ComfyUI, folder: Path, name: str
) -> None:
    graph = saving(single_pass("wan_t2v", ONE_PROMPT, patched()), name)
    # Beside another output the others would run.
    del graph[graph.nodes_of("SaveLatent")[0]]
    with pytest.raises(PromptRejectedError, match=r"must be a plain name|Windows keeps it"):
        comfyui.client.run(graph)
    assert not folder.exists()


UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("density", {"model": "CogVideo_5b"}, rf"model = '{MODEL}': the calibration was made on CogVideo_5b"),
    ("error", {}, r"target_error = 0\.2: the calibration was made for a density"),
    ("density", {"recipes": {0: [BY_HAND] * 2}, "errors": {0: [0.1] * 2}}, "layer = 1: .* none for this"),
]


@pytest.mark.parametrize(("preset", "changes", "words"), UNFIT)
def test_what_does_not_fit_is_an_error_that_names_it_or_measured_anew(
    comfyui: ComfyUI, folder: Path, preset: str, changes: dict[str, Any], words: str
) -> None:
    by_hand(**changes).save(folder / "theirs.yaml")
    with pytest.raises(PromptFailedError, match=rf'PSA Attention Patch: calibration "theirs": {words}'):
        comfyui.client.run(single_pass("wan_t2v", ONE_PROMPT, patched(preset, "theirs")))

    graph = saving(single_pass("wan_t2v", ONE_PROMPT, patched(preset, "theirs", "measure anew")))
    result = comfyui.client.run(graph)

    assert said(graph, result)[0].startswith('Saved "mine"')
    remarks = said(graph, result, "PSAAttentionPatch")[1:]
    assert any(line.startswith('measured anew: calibration "theirs": ') for line in remarks), remarks


def test_without_calibrated_heads_it_is_not_used(comfyui: ComfyUI, folder: Path) -> None:
    by_hand().save(folder / "theirs.yaml")
    with pytest.raises(PromptFailedError, match="mask_mode = 'topk': must be calibrated for a run with a calibration"):
        comfyui.client.run(single_pass("wan_t2v", ONE_PROMPT, patched("topk", "theirs")))
    graph = single_pass("wan_t2v", ONE_PROMPT, patched("topk", "theirs", "measure anew"))
    remarks = said(graph, comfyui.client.run(graph), "PSAAttentionPatch")[1:]
    assert any(line.startswith('no calibration is used: calibration "theirs": mask_mode') for line in remarks), remarks


@pytest.mark.parametrize("name", ["gone", "../calibrated", "broken"])
def test_what_cannot_be_loaded_is_refused_before_anything_runs_or_measured_anew(
    comfyui: ComfyUI, folder: Path, name: str
) -> None:
    by_hand().save(folder / "theirs.yaml")
    (folder / "broken.yaml").write_text("psa_calibration: 1\nrecipes: []\nheads: {0: [7]}\n")
    missing = "no such file; psa_presets/calibrations has .*theirs"
    words = r"broken\.yaml: heads\.0 = 7" if name == "broken" else missing
    with pytest.raises(PromptRejectedError, match=f"Load Calibration: .*{words}"):
        comfyui.client.run(single_pass("wan_t2v", ONE_PROMPT, patched(name=name)))

    with pytest.raises(PromptRejectedError, match=r"otherwise = 'guess': must be one of error, measure anew"):
        comfyui.client.run(single_pass("wan_t2v", ONE_PROMPT, patched(name=name, otherwise="guess")))

    graph = single_pass("wan_t2v", ONE_PROMPT, patched(name=name, otherwise="measure anew"))
    remarks = said(graph, comfyui.client.run(graph), "PSAAttentionPatch")[1:]
    assert any(line.startswith("measured anew: ") for line in remarks), remarks


def test_what_a_run_has_saved_can_be_chosen_at_once(canvas: Any, comfyui: ComfyUI, folder: Path) -> None:
    patch = patched(name="not here", otherwise="measure anew", **PRESET_NUMBERS | {"mask_mode": "calibrated"})
    graph = saving(single_pass("wan_t2v", ONE_PROMPT, patch), "fox")
    canvas.evaluate(LOAD_API, dict(graph))
    canvas.evaluate(SELECT, "PSALoadCalibration")
    assert canvas.evaluate(VALUES) == {"calibration": "not here", "otherwise": "measure anew"}
    before = set(comfyui.client.get_json("/history"))

    canvas.evaluate(QUEUE)

    assert comfyui.client.wait_for_history(before, timeout=60)["status"]["status_str"] == "success"
    canvas.wait_for_function(f"() => ({CHOICES})().includes('fox')", timeout=10_000)
    assert canvas.evaluate(CHOICES) == ["fox"]
    assert canvas.evaluate(VALUES)["calibration"] == "not here"
    canvas.evaluate(CHOOSE, ["calibration", "fox"])
    assert canvas.evaluate(EXPORT)[graph.nodes_of("PSALoadCalibration")[0]]["inputs"]["calibration"] == "fox"
    canvas.evaluate(SELECT, "PSASaveCalibration")
    assert canvas.evaluate(SAID).startswith('Saved "fox" in psa_presets/calibrations/fox.yaml')
