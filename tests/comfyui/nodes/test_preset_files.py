"""A user's own preset files in ComfyUI: listed, kept apart from the bundled ones, and never in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from psa_core.settings.dial import DIAL_PRESETS
from psa_core.settings.presets import bundled_dir, load_families

from ..conftest import ComfyUI
from ..graphs import Graph, single_pass
from ..pack_texts import node_ids
from ..psa import PRESET_NUMBERS, by_name, line, listed, psa

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


MASKED = """
Some:
  default_attention: masked
  attention_configs:
    masked: {type: psa, radial: {dense_layers: 1}}
    plain: {type: psa}
All:
  attention_configs:
    masked: &masked {type: psa, radial: {dense_layers: 1}}
    auto_fast: *masked
    auto_balanced: *masked
    auto_near_dense: *masked
"""
TOKENS = """
Tokens:
  attention_configs:
    none: {type: psa, min_tokens: 0, block_size: {m: 128, n: 32}}
    many: {type: psa, min_tokens: 481, block_size: {m: 128, n: 32}}
    silent: {type: psa, block_size: {m: 128, n: 32}}
"""


def test_route_lists_every_bundled_preset_as_widgets(comfyui: ComfyUI) -> None:
    content = listed(comfyui.server.address)

    assert content["errors"] == []
    assert content["models"].keys() == {name for name, x in load_families(bundled_dir()).items() if not x.host}
    numbers = content["models"]["Wan2.1_1.3b"]["presets"]["psa_balanced"]
    assert {key: numbers[key] for key in ("level_1", "level_2", "level_4", "level_8", "level_16", "warmup_steps")} == {
        "level_1": 0.5, "level_2": 0.6, "level_4": 0.7, "level_8": 0.8, "level_16": 0.0, "warmup_steps": "15",
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


def test_odd_things_in_the_folders_of_presets_cost_no_node(odd_comfyui: ComfyUI) -> None:
    assert all(odd_comfyui.client.object_info(node) is not None for node in node_ids())
    (error,) = listed(odd_comfyui.server.address)["errors"]
    assert "bool.yaml" in error
    assert "is not valid YAML" in error


def test_broken_file_is_reported_and_costs_only_its_own_presets(comfyui: ComfyUI, presets_folder: Path) -> None:
    (presets_folder / "broken.yaml").write_text(BROKEN)
    (presets_folder / "my_file.yaml").write_text(OWN)

    content = listed(comfyui.server.address)

    (error,) = content["errors"]
    assert error.startswith("broken.yaml: Wan2.1_14b: oops: mask_ratios.2 = [0.6, 1.0]: must start at 0.5")
    assert "mine" in content["models"]["Wan2.1_1.3b"]["presets"]
    graph = single_pass("wan_t2v", patch=psa())
    assert line(comfyui.client.run(graph), graph).sparse == 4


def test_a_file_without_presets_is_reported(comfyui: ComfyUI, presets_folder: Path) -> None:
    (presets_folder / "empty.yaml").write_text("# nothing yet\n")

    (error,) = listed(comfyui.server.address)["errors"]

    assert error == "file = 'empty.yaml': holds nothing: write presets into it, or delete it"
    (presets_folder / "Wan2.1_14b.yaml").write_text("")
    # And may be written into.
    graph = Graph()
    preset = graph.add("PSAPresetLoader", **PRESET_NUMBERS)
    graph.add("PSASavePreset", preset=preset, model="Wan2.1_14b", name="mine", overwrite=False)
    comfyui.client.run(graph)
    assert "mine" in listed(comfyui.server.address)["models"]["Wan2.1_14b"]["presets"]


def test_a_default_preset_with_a_mask_leaves_the_others_to_choose_from(comfyui: ComfyUI, presets_folder: Path) -> None:
    (presets_folder / "masked.yaml").write_text(MASKED)

    models = listed(comfyui.server.address)["models"]

    assert (models["Some"]["default"], list(models["Some"]["presets"])) == ("plain", ["plain", *DIAL_PRESETS])
    assert "All" not in models
    info = comfyui.client.object_info("PSAPresetLoader")
    assert info is not None
    options = info["input"]["required"]["model"][1]["options"]
    assert "Some" in options
    assert "All" not in options


@pytest.mark.parametrize(
    ("preset", "min_tokens", "sparse"),
    [("none", 0, 4), ("many", 0, 0), ("silent", 0, 0), ("none", 481, 0), ("many", 480, 4), ("silent", 1, 4)],
)
def test_min_tokens_is_the_presets_where_the_patch_has_none(
    comfyui: ComfyUI, presets_folder: Path, preset: str, min_tokens: int, sparse: int
) -> None:
    (presets_folder / "tokens.yaml").write_text(TOKENS)
    numbers = listed(comfyui.server.address)["models"]["Tokens"]["presets"][preset]
    whole = psa(model="Tokens", preset=preset, min_tokens=min_tokens, **numbers)

    for patch in (whole, by_name("Tokens", preset, min_tokens)):
        graph = single_pass("wan_t2v", patch=patch)
        assert line(comfyui.client.run(graph), graph).sparse == sparse


def test_listed_widgets_are_what_runs(comfyui: ComfyUI) -> None:
    for name, family in listed(comfyui.server.address)["models"].items():
        for preset, numbers in family["presets"].items():
            # Every model has the same dial.
            if preset in DIAL_PRESETS and name != PRESET_NUMBERS["model"]:
                continue
            graph = single_pass(
                "wan_t2v", patch=psa(**{"model": name, "preset": preset, **numbers, "warmup_steps": "0"})
            )
            shown = line(comfyui.client.run(graph), graph)
            assert shown.sparse == (0 if numbers["attention"] == "dense" else 4), (name, preset)
