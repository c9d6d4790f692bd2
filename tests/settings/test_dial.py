"""The dial: presets that every model has, and how many steps they leave dense."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from psa_core import ConfigError, PSAConfig, load_preset, load_presets, save_preset
from psa_core.settings.at_step import dense_places
from psa_core.settings.dial import DIAL_PRESETS, QUALITIES, dial_presets, preset_of
from psa_core.settings.presets import PRESETS_DIR_VARIABLE, load_families

from ..support.preset_files import FAMILIES, LARGE, write


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRESETS_DIR_VARIABLE, raising=False)


@pytest.mark.parametrize("model", FAMILIES)
def test_every_model_has_it_as_presets_that_know_the_model(model: str) -> None:
    presets, default = load_presets()[model], load_preset(model)
    dial = [presets[preset_of(quality)] for quality in QUALITIES]
    assert [config.target_density for config in dial] == [0.08, 0.15, 0.25]
    for config in dial:
        assert (config.type, config.mask_mode, config.map_steps) == ("psa", "calibrated", 4)
        assert (config.text_length, config.min_tokens) == (default.text_length, default.min_tokens)
        assert (config.radial, config.schedule) == (None, None)
    assert default == presets["psa_balanced" if model in LARGE or model == "tiny_video" else "auto_balanced"]


@pytest.mark.parametrize(("steps", "most"), [(2, 1), (4, 1), (8, 2), (20, 5), (50, 13)])
def test_few_dense_steps_however_few_there_are(steps: int, most: int) -> None:
    warmups = [dense_places(config, steps).start for config in dial_presets(PSAConfig()).values()]
    assert warmups == sorted(warmups)
    assert all(0 <= warmup <= most for warmup in warmups)


def test_of_a_file_its_own_preset_of_the_name_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = {"base": {"type": "dense", "min_tokens": 5}, "auto_fast": {"warmup_steps": 3}}
    file = write(tmp_path / "mine.yaml", own, default_attention="base", text_length=226)
    presets = load_presets(file)["M"]
    assert presets.keys() == {"base", *DIAL_PRESETS}
    assert presets["auto_fast"] == PSAConfig(warmup_steps=3, text_length=226)
    # Made like a default that is dense: it says what the model is, and nothing of how to attend.
    balanced = load_preset("M", "auto_balanced", file)
    assert (balanced.type, balanced.min_tokens, balanced.text_length) == ("psa", 5, 226)
    assert not caplog.records


def test_in_a_users_file_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "mine.yaml", {"auto_fast": {"warmup_steps": 3}}, model="Wan2.1_14b")
    family = load_families(user=tmp_path)["Wan2.1_14b"]
    assert family.presets["auto_fast"] == PSAConfig(warmup_steps=3)
    assert "already there" not in caplog.text


def test_bundled_models_keep_their_names_for_it(tmp_path: Path) -> None:
    config = load_preset("Wan2.1_14b", "auto_fast")
    save_preset("Wan2.1_14b", "mine", config, tmp_path)
    assert load_preset("Wan2.1_14b", "mine", tmp_path) == config
    with pytest.raises(ConfigError, match=r"preset = 'auto_fast': is the name of a bundled preset of Wan2\.1_14b"):
        save_preset("Wan2.1_14b", "auto_fast", dataclasses.replace(config, target_density=0.5), tmp_path)
    assert DIAL_PRESETS == ("auto_fast", "auto_balanced", "auto_near_dense")
