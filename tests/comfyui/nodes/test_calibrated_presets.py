"""Presets of calibrated attention in the Preset Loader: what they aim at stands in place of the bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psa_core import PSAConfig, load_preset

from ..browser import CHOOSE, EXPORT, SAVE, VALUES, reload_graph
from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Graph, Settings, single_pass
from ..level_bar import FRAME, PLACE
from ..psa import PRESET_NUMBERS, by_name, listed, psa

MODEL = "Wan2.1_1.3b"
FILE = """
Wan2.1_1.3b:
  attention_configs:
    exact:
      {mask_mode: calibrated, target_error: 0.08, min_tokens: 4000, map_steps: 4, candidate_orders: [Rows, Semantic],
       precision: int8, dense_backend: cudnn, max_extra_memory: 1.5}
    fast: {mask_mode: calibrated, target_density: 0.1}
"""
REFRESH = "async () => { await app.refreshComboInNodes(); }"
NAMES = "() => window.psaNode.widgets.find((w) => w.name === 'preset').options.values.includes('exact')"
TARGETS = ("target_density", "target_error")
# Names of the widgets that the classic canvas draws.
DRAWN = """() => {
    const node = window.psaNode;
    for (const widget of node.widgets) widget.last_y = null;
    app.canvas.draw(true, true);
    return node.widgets.filter((widget) => widget.last_y !== null).map((widget) => widget.name);
}"""
CHANGES = ".psa-preset-changes:visible"


@pytest.fixture
def presets(comfyui: ComfyUI, presets_folder: Path) -> dict[str, Any]:
    (presets_folder / "aims.yaml").write_text(FILE)
    found: dict[str, Any] = listed(comfyui.server.address)["models"][MODEL]["presets"]
    return found


def saved(comfyui: ComfyUI, folder: Path, **numbers: Any) -> PSAConfig:
    """The settings that a Preset Loader hands on, as Save Preset writes them."""
    graph = Graph()
    preset = graph.add("PSAPresetLoader", **numbers)
    graph.add("PSASavePreset", preset=preset, model=MODEL, name="copy", overwrite=True)
    comfyui.client.run(graph)
    return load_preset(MODEL, "copy", folder / f"{MODEL}.yaml").replace(description="")


@pytest.mark.parametrize("name", ["exact", "fast"])
def test_numbers_and_the_name_alone_are_the_preset(
    comfyui: ComfyUI, presets: dict[str, Any], presets_folder: Path, name: str
) -> None:
    held = load_preset(MODEL, name, presets_folder / "aims.yaml")
    for numbers in ({}, presets[name]):
        assert saved(comfyui, presets_folder, model=MODEL, preset=name, **numbers) == held


def test_a_number_that_is_changed_keeps_the_target(
    comfyui: ComfyUI, presets: dict[str, Any], presets_folder: Path
) -> None:
    changed = saved(comfyui, presets_folder, model=MODEL, preset="exact", **presets["exact"] | {"block_n": "64"})
    assert (changed.block_n, changed.target_error, changed.map_steps) == (64, 0.08, 4)


def test_another_mode_has_no_target(comfyui: ComfyUI, presets: dict[str, Any], presets_folder: Path) -> None:
    other = saved(comfyui, presets_folder, model=MODEL, preset="exact", **presets["exact"] | {"mask_mode": "topk"})
    assert (other.mask_mode, other.target_error, other.target_density) == ("topk", None, None)


def test_calibrated_by_hand_means_the_usual_density(comfyui: ComfyUI, presets_folder: Path) -> None:
    numbers = {key: value for key, value in PRESET_NUMBERS.items() if key not in TARGETS}
    config = saved(comfyui, presets_folder, **numbers | {"mask_mode": "calibrated"})
    assert (config.target_density, config.target_error) == (0.15, None)


def test_two_targets_are_two_presets(comfyui: ComfyUI, presets: dict[str, Any], presets_folder: Path) -> None:
    saved(comfyui, presets_folder, model=MODEL, preset="exact")
    assert saved(comfyui, presets_folder, model=MODEL, preset="fast").target_density == 0.1


def test_without_the_preset_a_target_is_taken_and_none_made_up(
    comfyui: ComfyUI, presets: dict[str, Any], presets_folder: Path
) -> None:
    config = saved(comfyui, presets_folder, model=MODEL, preset="theirs", **presets["exact"])
    assert (config.target_density, config.target_error) == (None, 0.08)
    numbers = {key: value for key, value in presets["exact"].items() if key not in TARGETS}
    patch = by_name(MODEL, "theirs", **numbers)
    with pytest.raises(PromptFailedError, match=r"preset = 'theirs': .* would say the target of calibrated: give targ"):
        comfyui.client.run(single_pass("wan_t2v", Settings(steps=1, cfg=1.0), patch))


def test_a_target_alone_takes_the_place_of_the_presets(comfyui: ComfyUI, presets_folder: Path) -> None:
    for aim, held in (({"target_error": 0.05}, (None, 0.05)), ({"target_density": 0.2}, (0.2, None))):
        config = saved(comfyui, presets_folder, model=MODEL, preset="auto_fast", **aim)
        assert (config.target_density, config.target_error, config.map_steps) == (*held, 4)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"target_density": 0.2, "target_error": 0.1},
         r"target_error = 0.1: must not stand beside target_density = 0.2: set the one that you do not mean to 0"),
        ({"target_density": 0.0}, r"target_density = 0.0: must be above 0 where target_error is 0"),
        ({"target_density": 1.5}, r"target_density = 1.5: must be a number above 0, and at most 1"),
        ({"mask_mode": "sometimes"}, r"mask_mode = 'sometimes': must be one of thresholdbound, topk"),
    ],
)  # fmt: skip
def test_two_targets_and_none_are_refused_before_anything_runs(
    comfyui: ComfyUI, numbers: dict[str, Any], words: str
) -> None:
    patch = psa(**{"mask_mode": "calibrated"} | numbers)
    with pytest.raises(PromptRejectedError, match=f"Preset Loader: {words}"):
        comfyui.client.run(single_pass("wan_t2v", Settings(steps=1, cfg=1.0), patch))


def test_of_another_mode_targets_are_not_looked_at(comfyui: ComfyUI, presets_folder: Path) -> None:
    config = saved(comfyui, presets_folder, **PRESET_NUMBERS | {"target_density": 0.0, "target_error": 0.3})
    assert (config.mask_mode, config.target_density, config.target_error) == ("topk", None, None)


def test_a_schedule_of_densities_beside_a_target_error_says_what_to_change(
    comfyui: ComfyUI, presets: dict[str, Any]
) -> None:
    patch = psa(model=MODEL, preset="exact", **presets["exact"], schedule={"curve": "linear"})
    with pytest.raises(PromptFailedError, match=r"target_error = 0\.08: .* of a schedule.*or give target_density"):
        comfyui.client.run(single_pass("wan_t2v", Settings(steps=1, cfg=1.0), patch))


def shown(page: Any) -> set[str]:
    """Which of bar, bounds and targets a user sees."""
    page.evaluate(FRAME)
    if page.locator(".lg-node").count():
        names = page.locator(".lg-node [data-testid='node-widget'], .lg-node .lg-node-widget").all_inner_texts()
        found = {name for name in (*TARGETS, "level_1", "level_8") if any(name in text for text in names)}
    else:
        drawn = page.evaluate(DRAWN)
        found = {name for name in (*TARGETS, "level_1", "level_8") if name in drawn}
    return found | ({"bar"} if page.locator(".psa-level-bar-track").is_visible() else set())


def test_targets_stand_in_place_of_the_bar_and_its_numbers(loader: Any, presets: dict[str, Any]) -> None:
    bounds = {"bar", "level_1", "level_8"}
    assert shown(loader) == bounds
    first_size = loader.evaluate("[...window.psaNode.size]")
    loader.evaluate(REFRESH)
    loader.wait_for_function(NAMES, timeout=10_000)

    loader.evaluate(CHOOSE, ["preset", "exact"])

    assert shown(loader) == set(TARGETS)
    assert not loader.locator(CHANGES).count()
    loader.evaluate(CHOOSE, ["preset", "psa_balanced"])
    assert shown(loader) == bounds
    assert loader.evaluate("[...window.psaNode.size]") == pytest.approx(first_size, abs=1)

    loader.evaluate(CHOOSE, ["preset", "exact"])
    # One of them holds.
    loader.evaluate(CHOOSE, ["target_density", 0.3])
    values = loader.evaluate(VALUES)
    assert (values["target_density"], values["target_error"]) == (0.3, 0)
    loader.evaluate(FRAME)
    assert "changed: target_density, target_error" in loader.locator(CHANGES).inner_text()

    # What is hidden is saved and sent all the same.
    saved_graph = loader.evaluate(SAVE)
    size = loader.evaluate("[...window.psaNode.size]")
    (exported,) = loader.evaluate(EXPORT).values()
    assert exported["inputs"] == values
    reload_graph(loader, saved_graph, "PSAPresetLoader")
    loader.evaluate(PLACE, [1.25, 420, 120])
    assert loader.evaluate(VALUES) == values
    assert shown(loader) == set(TARGETS)
    assert loader.evaluate("[...window.psaNode.size]") == pytest.approx(size, abs=1)
