"""A user's own presets: the folder they come from, and saving."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from psa_core import ConfigError, PSAConfig, load_preset, load_presets, save_preset
from psa_core.settings.preset_schema import config_to_schema
from psa_core.settings.presets import PRESETS_DIR_VARIABLE, load_families

from ..support.limited_disk import ROOT, needs_limits, run_python
from ..support.preset_files import FAMILIES, LANGUAGE_MODELS, UPSTREAM_FILE, in_files, write
from ..support.strategies import configs


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRESETS_DIR_VARIABLE, raising=False)


class TestUserFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "mine"
        folder.mkdir()
        monkeypatch.setenv(PRESETS_DIR_VARIABLE, str(folder))
        return folder

    def test_adds_models_and_presets(self, folder: Path) -> None:
        bundled = in_files()
        write(folder / "a.yaml", {"mine": {"warmup_steps": 3}}, model="Wan2.1_14b")
        write(folder / "b.yml", {"p": {"type": "psa"}}, model="Hunyuan")
        (folder / "notes.txt").write_text("not YAML: [", encoding="utf-8")
        merged = in_files()
        assert merged.pop("Hunyuan") == {"p": PSAConfig()}
        assert merged["Wan2.1_14b"].pop("mine") == PSAConfig(warmup_steps=3)
        assert merged == bundled
        assert load_preset("Wan2.1_14b") == bundled["Wan2.1_14b"]["psa_balanced"]

    def test_a_taken_name_is_listed_apart_and_said(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        bundled = load_presets()["Wan2.1_14b"]
        for i, name in enumerate(("a.yaml", "a.yml", "b.yaml")):
            write(folder / name, {"psa_balanced": {"warmup_steps": i}}, model="Wan2.1_14b")
        merged = load_presets()["Wan2.1_14b"]
        assert {name: merged[name] for name in bundled} == bundled
        added = {name: config.warmup_steps for name, config in merged.items() if name not in bundled}
        assert sorted(added.values()) == [0, 1, 2]
        assert added["psa_balanced@a"] == 0
        assert added["psa_balanced@b"] == 2
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 3
        assert all(name in "\n".join(said) for name in added)

    def test_the_same_settings_again_are_no_second_preset(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        bundled = load_presets()
        body = config_to_schema(bundled["Wan2.1_14b"]["psa_balanced"])
        write(folder / "a.yaml", {"psa_balanced": body}, model="Wan2.1_14b")
        assert load_presets() == bundled
        assert not caplog.records

    def test_need_not_exist(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        bundled = load_presets()
        monkeypatch.setenv(PRESETS_DIR_VARIABLE, str(tmp_path / "later"))
        assert load_presets() == bundled

    def test_a_broken_file_is_named_and_can_be_collected(self, folder: Path) -> None:
        bundled = load_presets()
        write(folder / "a.yaml", {"p": {"type": "sparse"}})
        write(folder / "b.yaml", {"p": {"type": "psa"}})
        with pytest.raises(ConfigError, match=r"^a\.yaml: M: p: type"):
            load_presets()
        errors: list[ConfigError] = []
        families = load_families(errors=errors)
        assert families.keys() == bundled.keys() | {"M"}
        assert [error.source for error in errors] == ["a.yaml: M: p"]

    def test_a_folder_given_in_code_goes_before_the_variable(self, folder: Path, tmp_path: Path) -> None:
        write(folder / "a.yaml", {"p": {}}, model="A")
        other = tmp_path / "other"
        other.mkdir()
        write(other / "b.yaml", {"p": {}}, model="B")
        assert load_families(user=other).keys() - FAMILIES.keys() - LANGUAGE_MODELS == {"B"}


class TestSave:
    @hypothesis.given(config=configs())
    @hypothesis.settings(max_examples=50, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
    def test_reads_back_equal(self, config: PSAConfig, tmp_path: Path) -> None:
        file = save_preset("Model 1.5-b", "my preset", config, tmp_path)
        assert file == tmp_path / "Model 1.5-b.yaml"
        assert load_preset("Model 1.5-b", path=file) == config
        file.unlink()

    def test_a_key_that_0_1_0_did_not_know_is_left_out_where_it_changes_nothing(self) -> None:
        assert {"map_steps", "candidate_orders", "early_density"}.isdisjoint(config_to_schema(PSAConfig()))
        assert config_to_schema(PSAConfig(candidate_orders=("Hybrid",)))["candidate_orders"] == ["Hybrid"]
        assert config_to_schema(PSAConfig(map_steps=4))["map_steps"] == 4

    def test_goes_to_the_users_folder_and_is_found_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PRESETS_DIR_VARIABLE, str(tmp_path / "made" / "for it"))
        config = PSAConfig(warmup_steps=4, description="für\x85mich")
        save_preset("Wan2.1_14b", "mine", config)
        assert load_preset("Wan2.1_14b", "mine") == config
        assert load_families()["Wan2.1_14b"].default == "psa_balanced"

    def test_keeps_what_the_file_holds(self, tmp_path: Path) -> None:
        file = tmp_path / "M.yaml"
        file.write_text(UPSTREAM_FILE, encoding="utf-8")
        before = in_files(file)
        save_preset("M", "a", PSAConfig(warmup_steps=1), tmp_path)
        save_preset("M", "b", PSAConfig(warmup_steps=2), tmp_path)
        save_preset("M", "a", PSAConfig(warmup_steps=3), tmp_path)
        after = in_files(file)
        assert {name: config.warmup_steps for name, config in after.pop("M").items()} == {"a": 3, "b": 2}
        assert after == before
        assert [path.name for path in tmp_path.glob("[!.]*")] == ["M.yaml"]

    @pytest.mark.parametrize("saves", [15, pytest.param(60, marks=pytest.mark.slow)])
    def test_two_processes_lose_none(self, saves: int, tmp_path: Path) -> None:
        code = (
            "import sys; from psa_core import PSAConfig, save_preset\n"
            f"for n in range({saves}):\n"
            "    save_preset('M', f'{sys.argv[1]} {n}', PSAConfig(warmup_steps=n), sys.argv[2])"
        )
        both = [subprocess.Popen([sys.executable, "-c", code, name, str(tmp_path)], cwd=ROOT) for name in ("a", "b")]
        assert [process.wait() for process in both] == [0, 0]
        saved = {name: config.warmup_steps for name, config in in_files(tmp_path / "M.yaml")["M"].items()}
        assert saved == {f"{name} {n}": n for name in ("a", "b") for n in range(saves)}
        assert [path.name for path in tmp_path.glob("*") if path.name != ".psa.lock"] == ["M.yaml"]

    def test_a_name_that_another_has_saved_since_is_kept(self, tmp_path: Path) -> None:
        save_preset("M", "a", PSAConfig(warmup_steps=1), tmp_path, overwrite=False)
        with pytest.raises(ConfigError, match="preset = 'a': M has a preset of this name"):
            save_preset("M", "a", PSAConfig(warmup_steps=2), tmp_path, overwrite=False)
        assert in_files(tmp_path / "M.yaml") == {"M": {"a": PSAConfig(warmup_steps=1)}}

    @needs_limits
    def test_a_full_disk_costs_no_preset(self, tmp_path: Path) -> None:
        save_preset("M", "a", PSAConfig(), tmp_path)
        before = (tmp_path / "M.yaml").read_bytes()
        code = f"from psa_core import *; save_preset('M', 'b', PSAConfig(description='x' * 9000), {str(tmp_path)!r})"
        done = run_python(code, largest_file=8192)
        assert done.stderr.splitlines()[-1].endswith(f"{tmp_path / 'M.yaml'} cannot be written: File too large")
        assert (tmp_path / "M.yaml").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == [".psa.lock", "M.yaml"]

    @pytest.mark.parametrize("model", ["CON", "nul", "com1.x"])
    def test_a_model_of_which_windows_has_no_file_is_refused(self, model: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=f"model = '{model}': is no name for a file"):
            save_preset(model, "p", PSAConfig(), tmp_path)
        assert not any(tmp_path.iterdir())

    def test_a_text_length_of_its_own_is_refused_not_lost(self, tmp_path: Path) -> None:
        save_preset("M", "a", PSAConfig(text_length=226), tmp_path)
        with pytest.raises(ConfigError, match=r"text_length = 0: M\.yaml has 226"):
            save_preset("M", "b", PSAConfig(), tmp_path)
        assert list(in_files(tmp_path)["M"]) == ["a"]

    def test_a_broken_file_is_refused_and_stays(self, tmp_path: Path) -> None:
        (tmp_path / "M.yaml").write_text("M: [", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"M\.yaml"):
            save_preset("M", "a", PSAConfig(), tmp_path)
        assert (tmp_path / "M.yaml").read_text(encoding="utf-8") == "M: ["

    @pytest.mark.parametrize(
        "name",
        ["", ".", "..", "../x", "a/b", "a\\b", "/tmp/x", "C:\\x", "C:x", "a..b", ".x", "a\n", "a\0b", "~", "ä"],
    )
    def test_names_that_are_no_plain_names(self, name: str, tmp_path: Path) -> None:
        folder = tmp_path / "mine"
        folder.mkdir()
        for model, preset, key in ((name, "p", "model"), ("M", name, "preset")):
            with pytest.raises(ConfigError, match="plain name") as caught:
                save_preset(model, preset, PSAConfig(), folder)
            assert (caught.value.key, caught.value.value) == (key, name)
        assert [path.name for path in tmp_path.rglob("*")] == ["mine"]

    def test_bundled_names_keep_their_settings(self, tmp_path: Path) -> None:
        config = load_preset("Wan2.1_14b")
        save_preset("Wan2.1_14b", "psa_balanced", config, tmp_path)
        with pytest.raises(ConfigError, match=r"preset = 'psa_balanced': .* bundled preset of Wan2\.1_14b"):
            save_preset("Wan2.1_14b", "psa_balanced", config.replace(warmup_steps=0), tmp_path)
        save_preset("Wan2.1_14b", "psa_balanced 0", config.replace(warmup_steps=0), tmp_path)

    def test_without_a_folder_says_how_to_have_one(self) -> None:
        with pytest.raises(ConfigError, match="PSA_PRESETS_DIR = None: set it"):
            save_preset("M", "p", PSAConfig())
