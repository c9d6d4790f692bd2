"""Save Preset: settings become a preset that is listed at once, and nothing that was there is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from psa_core.settings.presets import bundled_dir, load_families, load_preset

from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Graph
from ..psa import PRESET_NUMBERS, listed

MODEL = "Wan2.1_1.3b"
BUNDLED = {name: x for name, x in load_families(bundled_dir()).items() if not x.host}
FILE = """
Wan2.1_1.3b:
  attention_configs:
    mine: {type: psa, mask_ratios: {1: [0.0, 0.2], 0: [0.2, 1.0]}}
"""
BROKEN = "Wan2.1_1.3b: {attention_configs: {mine: {type: sparse}}} # not yet right\n"


def test_every_model_s_presets_are_listed_at_once_and_load_with_the_same_numbers(
    comfyui: ComfyUI, presets_folder: Path
) -> None:
    models = listed(comfyui.server.address)["models"]
    assert models.keys() == BUNDLED.keys()
    for model, family in models.items():
        numbers = family["presets"][family["default"]] | {"level_1": 0.03, "warmup_steps": "7"}
        graph = save(model, numbers | {"model": model})

        said = comfyui.client.run(graph).lines[node(graph)]

        assert said == f'Saved "mine" of {model} in psa_presets/{model}.yaml; Preset Loaders list it'
        after = listed(comfyui.server.address)
        assert after["errors"] == []
        presets = after["models"][model]["presets"]
        assert presets == {**family["presets"], "mine": numbers}
        # Outside ComfyUI these count as well.
        saved, wanted = load_preset(model, "mine", presets_folder / f"{model}.yaml"), BUNDLED[model]
        assert saved.text_length == wanted.text_length
        assert saved.min_tokens == wanted.presets[wanted.default].min_tokens
    info = comfyui.client.object_info("PSAPresetLoader")
    assert info is not None
    assert "mine" in json.dumps(info["input"]["required"]["preset"])


@pytest.mark.parametrize("name", ["", "a/b", "..", " mine", "a\\b"])
def test_names_that_are_no_plain_names_are_refused_before_anything_runs(
    comfyui: ComfyUI, presets_folder: Path, name: str
) -> None:
    with pytest.raises(PromptRejectedError, match="must be a plain name"):
        comfyui.client.run(save(name=name))
    graph = save()
    graph[node(graph)]["inputs"]["name"] = graph.add("PrimitiveString", value=name)
    with pytest.raises(PromptFailedError, match=r"Save Preset: name = .* must be a plain name"):
        comfyui.client.run(graph)

    assert not any(presets_folder.glob("*.yaml"))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["psa_balanced", "radial_short"])
def test_a_bundled_preset_stays_as_it_is(comfyui: ComfyUI, presets_folder: Path, name: str, overwrite: bool) -> None:
    with pytest.raises(
        PromptFailedError, match=f"Save Preset: name = '{name}': {MODEL} has a preset .* choose another"
    ):
        comfyui.client.run(save(name=name, overwrite=overwrite))

    assert not any(presets_folder.glob("*.yaml"))


def test_settings_that_are_there_are_not_written_again(comfyui: ComfyUI, presets_folder: Path) -> None:
    bundled = listed(comfyui.server.address)["models"]["CogVideo_5b"]["presets"]["psa_4steps"]
    graph = save("CogVideo_5b", bundled, "psa_4steps")
    assert comfyui.client.run(graph).lines[node(graph)].endswith("has these settings already")
    assert not any(presets_folder.glob("*.yaml"))

    comfyui.client.run(save())
    (file,) = presets_folder.glob("*.yaml")
    file.write_text(f"# a comment\n{file.read_text()}")
    for overwrite in (False, True):
        graph = save(overwrite=overwrite)
        assert comfyui.client.run(graph).lines[node(graph)] == f'"mine" of {MODEL} has these settings already'
    assert file.read_text().startswith("# a comment\n")


def test_other_settings_need_overwrite(comfyui: ComfyUI, presets_folder: Path) -> None:
    comfyui.client.run(save(name="first"))
    comfyui.client.run(save())
    (file,) = presets_folder.glob("*.yaml")
    before = file.read_text()
    other = PRESET_NUMBERS | {"level_8": 0.9}

    with pytest.raises(PromptFailedError, match=f"Save Preset: name = 'mine': {MODEL} has .* turn overwrite on"):
        comfyui.client.run(save(numbers=other))
    assert file.read_text() == before
    comfyui.client.run(save(numbers=other, overwrite=True))

    presets = listed(comfyui.server.address)["models"][MODEL]["presets"]
    assert (presets["first"]["level_8"], presets["mine"]["level_8"]) == (0.7, 0.9)
    assert [path.name for path in presets_folder.glob("*.yaml")] == [file.name]


def test_a_file_deleted_since_is_written_again(comfyui: ComfyUI, presets_folder: Path) -> None:
    graph = save()
    comfyui.client.run(graph)
    (file,) = presets_folder.glob("*.yaml")
    file.unlink()

    result = comfyui.client.run(graph)

    assert file.is_file()
    assert result.lines[node(graph)].startswith("Saved")


def test_a_name_of_another_file_s_preset_is_refused(comfyui: ComfyUI, presets_folder: Path) -> None:
    (presets_folder / "my_file.yaml").write_text(FILE)

    with pytest.raises(PromptFailedError, match=r"Save Preset: name = 'mine': .* in another file; choose another"):
        comfyui.client.run(save(overwrite=True))

    assert [path.name for path in presets_folder.glob("*.yaml")] == ["my_file.yaml"]


def test_a_broken_file_is_named_and_stays(comfyui: ComfyUI, presets_folder: Path) -> None:
    file = presets_folder / f"{MODEL}.yaml"
    file.write_text(BROKEN)

    with pytest.raises(PromptFailedError, match=r"Save Preset: Wan2\.1_1\.3b\.yaml: Wan2\.1_1\.3b: mine: type"):
        comfyui.client.run(save(overwrite=True))

    assert file.read_text() == BROKEN
    # Another model's file has nothing to do with it.
    comfyui.client.run(save("Wan2.1_14b"))
    assert "mine" in listed(comfyui.server.address)["models"]["Wan2.1_14b"]["presets"]


def test_goes_into_a_user_s_file_as_that_is(comfyui: ComfyUI, presets_folder: Path) -> None:
    file = presets_folder / "CogVideo_5b.yaml"
    file.write_text(FILE.replace(MODEL, "CogVideo_5b"))

    comfyui.client.run(save("CogVideo_5b", name="second"))

    assert listed(comfyui.server.address)["errors"] == []
    assert load_preset("CogVideo_5b", "mine", file).mask_ratios[1] == (0.0, 0.2)
    # That of the bundled file would change the preset that was there.
    assert load_preset("CogVideo_5b", "second", file).text_length == 0


def save(
    model: str = MODEL, numbers: dict[str, Any] = PRESET_NUMBERS, name: str = "mine", overwrite: bool = False
) -> Graph:
    """A Preset Loader and a Save Preset."""
    graph = Graph()
    preset = graph.add("PSAPresetLoader", **(PRESET_NUMBERS | numbers))
    graph.add("PSASavePreset", preset=preset, model=model, name=name, overwrite=overwrite)
    return graph


def node(graph: Graph) -> str:
    """The id of the Save Preset."""
    (only,) = graph.nodes_of("PSASavePreset")
    return only
