"""A user's own preset files in ComfyUI: listed, kept apart from the bundled ones, and never in the way."""

from __future__ import annotations

import json
from pathlib import Path

from ..conftest import ComfyUI
from ..graphs import single_pass
from ..psa import line, listed, psa

OWN = """
Wan2.1_1.3b:
  attention_configs:
    psa_balanced: {type: psa, mask_ratios: {1: [0.0, 0.2], 32: [0.2, 1.0]}, warmup_steps: 2}
    mine: {type: psa, block_size: {m: 128, n: 64}, mask_ratios: {1: [0.0, 0.5], 0: [0.5, 1.0]}, frobnicate: 3}
"""
BROKEN = """
Wan2.1_14b:
  attention_configs:
    oops: {type: psa, mask_ratios: {1: [0.0, 0.5], 2: [0.6, 1.0]}}
"""


def test_route_lists_every_bundled_preset_as_widgets(comfyui: ComfyUI) -> None:
    content = listed(comfyui.server.address)

    assert content["errors"] == []
    assert len(content["models"]) == 8
    numbers = content["models"]["Wan2.1_1.3b"]["presets"]["psa_balanced"]
    assert {key: numbers[key] for key in ("level_1", "level_2", "level_4", "level_8", "level_16", "warmup_steps")} == {
        "level_1": 0.5, "level_2": 0.6, "level_4": 0.7, "level_8": 0.8, "level_16": 0.0, "warmup_steps": 15,
    }  # fmt: skip


def test_own_presets_are_listed_and_override_nothing(comfyui: ComfyUI, presets_folder: Path) -> None:
    before = listed(comfyui.server.address)["models"]["Wan2.1_1.3b"]["presets"]
    (presets_folder / "my_file.yaml").write_text(OWN)
    log_start = len(comfyui.server.log_text())

    after = listed(comfyui.server.address)["models"]["Wan2.1_1.3b"]["presets"]

    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"mine", "psa_balanced@my_file"}
    assert after["psa_balanced@my_file"]["level_32"] == 1.0
    assert after["mine"]["block_n"] == "64"
    assert "unknown key 'frobnicate'" in comfyui.server.log_text()[log_start:]
    info = comfyui.client.object_info("PSAPresetLoader")
    assert info is not None
    assert "mine" in json.dumps(info["input"]["required"]["preset"])


def test_what_is_odd_in_a_file_is_said_once(comfyui: ComfyUI, presets_folder: Path) -> None:
    (presets_folder / "said_once.yaml").write_text(OWN)
    log_start = len(comfyui.server.log_text())

    for _ in range(2):
        listed(comfyui.server.address)
        comfyui.client.run(single_pass("wan_t2v", patch=psa()))

    assert comfyui.server.log_text()[log_start:].count("unknown key 'frobnicate'") == 1


def test_a_folder_meant_for_other_hosts_does_not_matter(odd_comfyui: ComfyUI) -> None:
    assert odd_comfyui.client.object_info("PSAPresetLoader") is not None


def test_broken_file_is_reported_and_costs_only_its_own_presets(comfyui: ComfyUI, presets_folder: Path) -> None:
    (presets_folder / "broken.yaml").write_text(BROKEN)
    (presets_folder / "my_file.yaml").write_text(OWN)

    content = listed(comfyui.server.address)

    (error,) = content["errors"]
    assert error.startswith("broken.yaml: Wan2.1_14b: oops: mask_ratios.2 = [0.6, 1.0]: must start at 0.5")
    assert "mine" in content["models"]["Wan2.1_1.3b"]["presets"]
    graph = single_pass("wan_t2v", patch=psa())
    assert line(comfyui.client.run(graph), graph).sparse == 4


def test_listed_widgets_are_what_runs(comfyui: ComfyUI) -> None:
    for name, family in listed(comfyui.server.address)["models"].items():
        for preset, numbers in family["presets"].items():
            graph = single_pass("wan_t2v", patch=psa(**{"model": name, "preset": preset, **numbers, "warmup_steps": 0}))
            shown = line(comfyui.client.run(graph), graph)
            assert shown.sparse == (0 if numbers["attention"] == "dense" else 4), (name, preset)
