"""Prompts without some of the Preset Loader's numbers, as people write by hand and other releases left them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Settings, single_pass
from ..psa import PRESET_NUMBERS, Line, by_name, line, listed, psa

MODEL = "Mine"
FILE = """
Mine:
  attention_configs:
    few: {{mask_mode: topk, block_size: {{m: 128, n: 32}}, mask_ratios: {{1: [0, {bound}], 0: [{bound}, 1]}}}}
    late: {{type: psa, block_size: {{m: 128, n: 32}}, warmup_steps: 50%}}
    masked: {{type: psa, block_size: {{m: 128, n: 32}}, radial: {{dense_layers: 1}}}}
"""
SETTINGS = Settings(steps=4, cfg=1.0)


@pytest.fixture
def mine(comfyui: ComfyUI, presets_folder: Path) -> dict[str, Any]:
    (presets_folder / "mine.yaml").write_text(FILE.format(bound=0.3))
    presets: dict[str, Any] = listed(comfyui.server.address)["models"][MODEL]["presets"]
    return presets


def ran(comfyui: ComfyUI, patch: Any) -> Line:
    graph = single_pass("wan_t2v", SETTINGS, patch)
    return line(comfyui.client.run(graph), graph)


def test_a_name_alone_is_the_preset(comfyui: ComfyUI, mine: dict[str, Any]) -> None:
    for preset, numbers in mine.items():
        written, short = (
            comfyui.client.sample(single_pass("wan_t2v", SETTINGS, patch))
            for patch in (psa(model=MODEL, preset=preset, **numbers), by_name(MODEL, preset))
        )
        assert torch.equal(written, short)
    assert ran(comfyui, by_name(MODEL, "late")).reasons["warm-up"] == 4


def test_a_name_alone_is_the_preset_with_its_mask(comfyui: ComfyUI, mine: dict[str, Any]) -> None:
    assert "masked" not in mine
    assert ran(comfyui, by_name(MODEL, "masked")).reasons["dense layer"] == 4
    # Numbers beside it hold, as before.
    assert not ran(comfyui, psa(model=MODEL, preset="masked")).reasons["dense layer"]


def test_numbers_that_are_there_hold(comfyui: ComfyUI, mine: dict[str, Any]) -> None:
    assert ran(comfyui, by_name(MODEL, "late", warmup_steps=1)).reasons["warm-up"] == 2
    assert ran(comfyui, by_name(MODEL, "few", warmup_steps="75%")).reasons["warm-up"] == 6


@pytest.mark.parametrize("left_out", ["tile_width", "warmup_steps", "level_128"])
def test_a_prompt_without_a_newer_number_runs(comfyui: ComfyUI, left_out: str) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa())
    (loader,) = graph.nodes_of("PSAPresetLoader")
    del graph[loader]["inputs"][left_out]

    comfyui.client.run(graph)


def test_a_changed_file_is_read_anew(comfyui: ComfyUI, mine: dict[str, Any], presets_folder: Path) -> None:
    before = ran(comfyui, by_name(MODEL, "few")).density
    file = presets_folder / "mine.yaml"
    file.write_text(FILE.format(bound=0.9))
    # Clocks of file systems are coarse.
    os.utime(file, (1, 1))

    assert ran(comfyui, by_name(MODEL, "few")).density > before


def test_an_unknown_name_without_numbers_names_what_there_is(
    comfyui: ComfyUI, mine: dict[str, Any], presets_folder: Path
) -> None:
    with pytest.raises(PromptFailedError, match=r"preset = 'fast': Mine has few, late, masked, .*attention, level_1, "):
        ran(comfyui, by_name(MODEL, "fast"))
    with pytest.raises(PromptFailedError, match=r"preset = 'fast': there is no model Nobody's; .* level_1"):
        ran(comfyui, by_name("Nobody's", "fast"))
    (presets_folder / "broken.yaml").write_text("Mine: {attention_configs: {fast: {type: psa, warmup_steps: -1}}}")
    with pytest.raises(PromptFailedError, match=r"Mine has few, .*; left out: broken\.yaml: .*warmup_steps = -1: must"):
        ran(comfyui, by_name(MODEL, "fast"))


def test_numbers_of_another_preset_hold_and_are_warned_of(comfyui: ComfyUI, mine: dict[str, Any]) -> None:
    log_start = len(comfyui.server.log_text())
    contradiction = ran(comfyui, psa(model=MODEL, preset="few", **mine["late"]))
    warned = comfyui.server.log_text()[log_start:]

    assert contradiction.reasons["warm-up"] == 4
    assert 'the preset "few" of Mine is chosen, but the numbers are those of "late": the numbers hold' in warned
    log_start = len(comfyui.server.log_text())
    # Neither is a preset with its numbers a contradiction, nor one whose numbers were changed.
    ran(comfyui, psa(model=MODEL, preset="late", **mine["late"]))
    ran(comfyui, psa(model=MODEL, preset="late", **mine["late"] | {"level_1": 0.01}))
    assert "is chosen, but" not in comfyui.server.log_text()[log_start:]


@pytest.mark.parametrize("value", ["soon", "150%", "", -1, 2.5])
def test_one_wrong_amount_is_one_error_at_its_node(comfyui: ComfyUI, value: Any) -> None:
    with pytest.raises(PromptRejectedError) as refused:
        ran(comfyui, psa(warmup_steps=value))

    (node,) = refused.value.node_errors.values()
    (error,) = node["errors"]
    assert node["class_type"] == "PSAPresetLoader"
    assert error["details"].startswith(f"Preset Loader: warmup_steps = {value!r}: must be a number of steps")


@pytest.mark.parametrize("key", ["dense_timesteps", "last_dense_timesteps"])
def test_the_masks_amounts_alike(comfyui: ComfyUI, key: str) -> None:
    with pytest.raises(PromptRejectedError) as refused:
        ran(comfyui, psa(mask={key: "soon", "scene_boundaries": "0, 16"}))

    (node,) = refused.value.node_errors.values()
    assert [error["details"].split(":")[:2] for error in node["errors"]] == [["Radial Mask", f" {key} = 'soon'"]]


@pytest.mark.parametrize(("value", "dense"), [(3, 6), ("3", 6), ("50%", 4), (0, 0)])
def test_amounts_may_be_linked(comfyui: ComfyUI, value: int | str, dense: int) -> None:
    graph = single_pass("wan_t2v", SETTINGS, psa())
    (loader,) = graph.nodes_of("PSAPresetLoader")
    kind = "PrimitiveInt" if isinstance(value, int) else "PrimitiveString"
    graph[loader]["inputs"]["warmup_steps"] = graph.add(kind, value=value)

    assert line(comfyui.client.run(graph), graph).reasons["warm-up"] == dense
    assert set(graph[loader]["inputs"]) == set(PRESET_NUMBERS)
