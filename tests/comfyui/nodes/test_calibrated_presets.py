"""Presets of calibrated attention in the Preset Loader, none of whose numbers says what they aim at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psa_core import PSAConfig, load_preset

from ..browser import CHOOSE
from ..client import PromptFailedError
from ..conftest import ComfyUI
from ..graphs import Graph, Settings, single_pass
from ..level_bar import caption
from ..psa import PRESET_NUMBERS, listed, psa

MODEL = "Wan2.1_1.3b"
FILE = """
Wan2.1_1.3b:
  attention_configs:
    exact: {mask_mode: calibrated, target_error: 0.08, min_tokens: 4000, map_steps: 4}
    fast: {mask_mode: calibrated, target_density: 0.1}
"""
REFRESH = "async () => { await app.refreshComboInNodes(); }"
NAMES = "() => window.psaNode.widgets.find((w) => w.name === 'preset').options.values.includes('exact')"
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
    config = saved(comfyui, presets_folder, **PRESET_NUMBERS | {"mask_mode": "calibrated"})
    assert (config.target_density, config.target_error) == (0.15, None)


def test_two_targets_are_two_presets(comfyui: ComfyUI, presets: dict[str, Any], presets_folder: Path) -> None:
    saved(comfyui, presets_folder, model=MODEL, preset="exact")
    assert saved(comfyui, presets_folder, model=MODEL, preset="fast").target_density == 0.1


def test_a_target_that_this_machine_does_not_know_is_not_made_up(comfyui: ComfyUI, presets: dict[str, Any]) -> None:
    patch = psa(model=MODEL, preset="theirs", **presets["exact"])
    with pytest.raises(PromptFailedError, match=r"preset = 'theirs': .* would say the target of calibrated"):
        comfyui.client.run(single_pass("wan_t2v", Settings(steps=1, cfg=1.0), patch))


def test_a_schedule_of_densities_beside_a_target_error_says_what_to_change(
    comfyui: ComfyUI, presets: dict[str, Any]
) -> None:
    patch = psa(model=MODEL, preset="exact", **presets["exact"], schedule={"curve": "linear"})
    with pytest.raises(PromptFailedError, match=r"target_error = 0\.08: .* of a schedule.*or give target_density"):
        comfyui.client.run(single_pass("wan_t2v", Settings(steps=1, cfg=1.0), patch))


def test_the_bar_says_that_it_is_not_used(loader: Any, presets: dict[str, Any]) -> None:
    loader.evaluate(REFRESH)
    loader.wait_for_function(NAMES, timeout=10_000)
    loader.evaluate(CHOOSE, ["preset", "exact"])
    assert caption(loader)[1] == "not used: mask_mode is calibrated"
    assert not loader.locator(CHANGES).count()

    loader.evaluate(CHOOSE, ["mask_mode", "topk"])
    assert caption(loader)[1].startswith("budget ")
    assert "changed: mask_mode" in loader.locator(CHANGES).inner_text()
