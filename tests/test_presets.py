"""Preset files: the bundled values, upstream's schema unchanged, the user's folder, saving, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import hypothesis
import pytest
import yaml

from psa_core import ConfigError, PSAConfig, load_preset, load_presets, save_preset
from psa_core.presets import PRESETS_DIR_VARIABLE, config_to_schema, load_families, read_preset_file

from .strategies import configs

# model: text length and video scale in width, height, depth
FAMILIES = {
    "Wan2.1_14b": (0, (16, 16, 4)),
    "Wan2.1_1.3b": (0, (16, 16, 4)),
    "Wan2.2_A14B": (0, (16, 16, 4)),
    "Wan2.2_5B": (0, (32, 32, 4)),
    "CogVideo1.5_5b": (226, (16, 16, 8)),
    "CogVideo_5b": (226, (16, 16, 4)),
    "CogVideo_2b": (226, (16, 16, 4)),
}

# model, preset, block n, reordered, cosine cap, mode, attn_impl, upper bounds of levels 1 2 4 8, warm-up, x8 threshold
UPSTREAM = [
    ("Wan2.1_14b", "psa_balanced", 128, True, False, "thresholdbound", "new", (0.4, 0.5, 0.6, 0.8), 15, 0.6),
    ("Wan2.1_1.3b", "psa_balanced", 128, True, True, "thresholdbound", "old", (0.5, 0.6, 0.7, 0.8), 15, 0.6),
    ("Wan2.1_1.3b", "psa_topk", 32, True, False, "topk", "new", (0.05, 0.1, 0.15, 0.25), 15, 0.65),
    ("Wan2.2_A14B", "psa_balanced", 32, True, False, "thresholdbound", "new", (0.5, 0.6, 0.6, 0.8), 12, 0.6),
    ("Wan2.2_5B", "psa_balanced", 32, True, False, "thresholdbound", "new", (0.6, 0.7, 0.7, 0.8), 15, 0.6),
    ("CogVideo1.5_5b", "psa_balanced", 32, True, False, "topk", "new", (0.1, 0.15, 0.15, 0.35), 15, 0.6),
    ("CogVideo_5b", "psa_balanced", 128, False, False, "topk", "new", (0.1, 0.15, 0.15, 0.35), 15, 0.6),
    ("CogVideo_5b", "psa_4steps", 128, False, False, "topk", "old", (0.05, 0.15, 0.25, 0.5), 0, 0.6),
]

# An upstream attention_config.yaml: several models, and the example presets of its guides.
UPSTREAM_FILE = """
Wan2.1_14b:
  default_attention: baseline
  video_scale:
    width_divisor: 16
    height_divisor: 16
    depth_divisor: 4
  text_length: 0
  attention_configs:
    baseline:
      type: dense
      description: "Dense attention baseline"
    capped:
      type: psa
      description: "Upstream refuses these two together"
      use_rearrange: true
      use_sim_mask: true
      block_size: {m: 128, n: 64, tile_n: 32}
      mask_ratios: {1: [0.0, 1.0]}
      mask_mode: topk
      attn_impl: new_mask_type
CogVideo_5b:
  default_attention: my_custom_preset     # Default preset to use
  video_scale:                       # Video dimension divisors (model-specific)
    width_divisor: 16
    height_divisor: 16
    depth_divisor: 4
  text_length: 226                   # Text token length (0 for text-free models)
  attention_configs:
    my_custom_preset:
      type: psa
      description: "我的自定义 PSA 配置"
      use_rearrange: true
      use_sim_mask: false
      block_size:
        m: 128
        n: 64
        tile_n: 32
      mask_ratios:
        1: [0.0, 0.5]
        2: [0.5, 0.7]
        4: [0.7, 0.9]
        0: [0.9, 1.0]
      mask_mode: thresholdbound
      attn_impl: new_mask_type
      tile_size: [2, 8, 8]
      warmup_steps: 10
      rearrange_method: Gilbert
      verbose: false
      sim_thresholds:
        x2: 0.7
        x4: 0.65
        x8: 0.6
    shorter:
      type: psa
      use_rearrange: true
      block_size:
        m: 128
        n: 64
        tile_n: 32
      mask_ratios:
        1: [0.0, 0.5]
        2: [0.5, 0.7]
        4: [0.7, 0.9]
        0: [0.9, 1.0]
      mask_mode: thresholdbound
      warmup_steps: 10
"""


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRESETS_DIR_VARIABLE, raising=False)


def write(path: Path, presets: dict[str, dict], model: str = "M", **family: object) -> Path:
    path.write_text(yaml.safe_dump({model: {"attention_configs": presets, **family}}), encoding="utf-8")
    return path


class TestBundled:
    def test_families(self) -> None:
        families = load_families()
        assert {name: (f.text_length, tuple(f.video_scale.values())) for name, f in families.items()} == FAMILIES
        for family in families.values():
            assert family.default == "psa_balanced"
            assert family.notes == ()
            assert list(family.video_scale) == ["width_divisor", "height_divisor", "depth_divisor"]
            assert family.presets["baseline"].type == "dense"
            assert {config.text_length for config in family.presets.values()} == {family.text_length}
            assert all(config.description for config in family.presets.values())

    @pytest.mark.parametrize(
        ("model", "preset", "block_n", "rearrange", "sim_mask", "mode", "impl", "bounds", "warmup", "x8"), UPSTREAM
    )
    def test_upstream_values(
        self,
        model: str,
        preset: str,
        block_n: int,
        rearrange: bool,
        sim_mask: bool,
        mode: str,
        impl: str,
        bounds: tuple[float, ...],
        warmup: int,
        x8: float,
    ) -> None:
        edges = [0.0, *bounds, 1.0]
        config = load_preset(model, preset)
        assert config == PSAConfig(
            block_m=128,
            block_n=block_n,
            tile_n=32,
            use_rearrange=rearrange,
            rearrange_method="Gilbert",
            use_sim_mask=sim_mask,
            mask_mode=mode,
            attn_impl=f"{impl}_mask_type",
            mask_ratios={level: (edges[i], edges[i + 1]) for i, level in enumerate((1, 2, 4, 8, 0))},
            warmup_steps=warmup,
            tile_size=(2, 8, 8),
            sim_thresholds={"x2": 0.7, "x4": 0.65, "x8": x8},
            text_length=FAMILIES[model][0],
            description=config.description,
        )

    def test_the_2b_model_uses_the_settings_of_the_5b(self) -> None:
        assert load_preset("CogVideo_2b") == load_preset("CogVideo_5b")

    @pytest.mark.parametrize("model", FAMILIES)
    def test_every_family_has_a_preset_for_few_steps(self, model: str) -> None:
        presets = load_presets()[model]
        few = [config for name, config in presets.items() if name in ("psa_few_steps", "psa_4steps")]
        assert few
        assert all(config.warmup_steps <= 1 and config.type == "psa" for config in few)

    def test_default_preset(self) -> None:
        assert load_preset("Wan2.1_14b") == load_preset("Wan2.1_14b", "psa_balanced")

    def test_unknown_names_list_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"model = 'Wan3': must be one of CogVideo1\.5_5b, .*Wan2\.2_A14B"):
            load_preset("Wan3")
        with pytest.raises(ConfigError, match=r"preset = 'fast': Wan2\.1_14b has baseline, psa_balanced"):
            load_preset("Wan2.1_14b", "fast")


class TestUpstreamFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "attention_config.yaml"
        file.write_text(UPSTREAM_FILE, encoding="utf-8")
        return file

    def test_loads_unchanged(self, file: Path) -> None:
        presets = load_presets(file)
        assert {model: list(found) for model, found in presets.items()} == {
            "Wan2.1_14b": ["baseline", "capped"],
            "CogVideo_5b": ["my_custom_preset", "shorter"],
        }
        expected = PSAConfig(
            block_n=64,
            mask_ratios={1: (0, 0.5), 2: (0.5, 0.7), 4: (0.7, 0.9), 0: (0.9, 1)},
            warmup_steps=10,
            text_length=226,
        )
        assert load_preset("CogVideo_5b", path=file) == expected.replace(description="我的自定义 PSA 配置")
        assert load_preset("CogVideo_5b", "shorter", file) == expected
        assert load_preset("Wan2.1_14b", path=file).type == "dense"

    def test_settings_that_upstream_refuses_together_work_and_are_noted(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = load_preset("Wan2.1_14b", "capped", file)
        assert (config.use_sim_mask, config.attn_impl) == (True, "new_mask_type")
        (record,) = caplog.records
        assert record.getMessage().startswith("attention_config.yaml: Wan2.1_14b: capped: attn_impl")

    def test_read_from_a_folder_or_with_a_byte_order_mark(self, file: Path) -> None:
        expected = load_presets(file)
        assert load_presets(file.parent) == expected
        file.write_text(UPSTREAM_FILE, encoding="utf-8-sig")
        assert load_presets(str(file)) == expected

    def test_unknown_keys_are_noted_and_the_rest_loads(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        preset = {"type": "psa", "warm_up_steps": 3, "block_size": {"m": 64, "tile": 16}, "text_length": 4}
        scale = {"width_divisor": 16, "fps": 24}
        file = write(tmp_path / "f.yaml", {"p": preset}, defualt_attention="p", video_scale=scale)
        assert load_preset("M", path=file) == PSAConfig(block_m=64)
        notes = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert sorted(notes) == [
            "f.yaml: M: p: block_size: unknown key 'tile' is ignored; did you mean 'tile_n'?",
            "f.yaml: M: p: unknown key 'text_length' is ignored",
            "f.yaml: M: p: unknown key 'warm_up_steps' is ignored; did you mean 'warmup_steps'?",
            "f.yaml: M: unknown key 'defualt_attention' is ignored; did you mean 'default_attention'?",
            "f.yaml: M: video_scale: unknown key 'fps' is ignored",
        ]
        assert sorted(read_preset_file(file)[0].notes) == sorted(notes)


class TestRefusals:
    @pytest.mark.parametrize(
        ("preset", "message"),
        [
            ({"mask_ratios": {1: [0, 0.5], 2: [0.6, 1]}}, "p: mask_ratios.2 = [0.6, 1.0]: must start at 0.5"),
            ({"block_size": {"n": 48}}, "p: block_n = 48: must be one of 32, 64, 128"),
            ({"block_size": 128}, "p: block_size = 128: must be a mapping"),
            ({"sim_thresholds": {"x2": "high"}}, "p: sim_thresholds.x2 = 'high': must be a cosine similarity"),
            ({"type": "sage"}, "p: type = 'sage': must be one of psa, dense"),
            ("psa", "p: preset = 'psa': must be a mapping"),
            (None, "p: preset = None: must be a mapping"),
        ],
    )
    def test_name_file_model_preset_and_key(self, preset: object, message: str, tmp_path: Path) -> None:
        file = write(tmp_path / "broken.yaml", {"fine": {"type": "dense"}, "p": preset}, model="Wan")
        with pytest.raises(ConfigError) as caught:
            load_presets(file)
        assert str(caught.value).startswith(f"broken.yaml: Wan: {message}")

    @pytest.mark.parametrize(
        ("family", "message"),
        [
            ({"default_attention": "q"}, "default_attention = 'q': must be one of p"),
            ({"default_attention": ["p"]}, "default_attention = "),
            ({"text_length": "226"}, "p: text_length = '226': must be a whole number"),
            ({"video_scale": 16}, "video_scale = 16: must be a mapping"),
            ({"video_scale": {"width_divisor": 0}}, "video_scale.width_divisor = 0: must be a whole number"),
            ({"video_scale": {"depth_divisor": "4"}}, "video_scale.depth_divisor = '4': must be a whole number"),
            ({"attention_configs": {}}, "attention_configs = {}: must hold at least one preset"),
            ({"attention_configs": None}, "attention_configs = None: must be a mapping"),
        ],
    )
    def test_name_the_key_of_a_model(self, family: dict[str, object], message: str, tmp_path: Path) -> None:
        body = {"attention_configs": {"p": {"type": "psa"}}} | family
        file = tmp_path / "broken.yaml"
        file.write_text(yaml.safe_dump({"Wan": body}), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_presets(file)
        assert str(caught.value).startswith(f"broken.yaml: Wan: {message}")

    @pytest.mark.parametrize("text", ["- Wan", "42", "Wan", "Wan: 7", "Wan: [a]"])
    def test_documents_that_are_no_mapping(self, text: str, tmp_path: Path) -> None:
        file = tmp_path / "f.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"^f\.yaml: .*must be a mapping"):
            load_presets(file)

    @pytest.mark.parametrize(
        "text",
        [
            b"Wan: [",
            b"Wan:\n\tattention_configs: {}",
            b"Wan: {? [a] : b}",
            b"Wan: *missing",
            b"Wan: !!float many",
            b"Wan: 2025-99-99",
            b"[" * 5000,
            b"\xff\xfeW\x00a\x00n\x00",
            b"Wan: \x07",
        ],
    )
    def test_malformed_files(self, text: bytes, tmp_path: Path) -> None:
        file = tmp_path / "f.yaml"
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=r"^f\.yaml: file = 'f\.yaml': is not valid YAML"):
            load_presets(file)

    @pytest.mark.parametrize(
        "tag",
        [
            "!!python/object/apply:os.system ['touch {0}']",
            "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{0}']]",
            "!!python/object/new:subprocess.Popen [[touch, '{0}']]",
            "!!python/name:os.system ''",
        ],
    )
    def test_python_tags_never_run(self, tag: str, tmp_path: Path) -> None:
        made = tmp_path / "made"
        file = tmp_path / "f.yaml"
        file.write_text(f"Wan:\n  attention_configs:\n    p: {tag.format(made)}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match="could not determine a constructor"):
            load_presets(file)
        assert not made.exists()

    def test_empty_file_holds_nothing(self, tmp_path: Path) -> None:
        file = tmp_path / "f.yaml"
        file.write_text("# nothing yet\n", encoding="utf-8")
        assert load_presets(file) == {}

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
            load_presets(tmp_path / "nothing.yaml")


class TestUserFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "mine"
        folder.mkdir()
        monkeypatch.setenv(PRESETS_DIR_VARIABLE, str(folder))
        return folder

    def test_adds_models_and_presets(self, folder: Path) -> None:
        bundled = load_presets()
        write(folder / "a.yaml", {"mine": {"warmup_steps": 3}}, model="Wan2.1_14b")
        write(folder / "b.yml", {"p": {"type": "psa"}}, model="Hunyuan")
        (folder / "notes.txt").write_text("not YAML: [", encoding="utf-8")
        merged = load_presets()
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
        assert load_families(user=other).keys() - FAMILIES.keys() == {"B"}


class TestSave:
    @hypothesis.given(config=configs())
    @hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
    def test_reads_back_equal(self, config: PSAConfig, tmp_path: Path) -> None:
        file = save_preset("Model 1.5-b", "my preset", config, tmp_path)
        assert file == tmp_path / "Model 1.5-b.yaml"
        assert load_preset("Model 1.5-b", path=file) == config
        file.unlink()

    def test_goes_to_the_users_folder_and_is_found_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PRESETS_DIR_VARIABLE, str(tmp_path / "made" / "for it"))
        config = PSAConfig(warmup_steps=4, description="für mich")
        save_preset("Wan2.1_14b", "mine", config)
        assert load_preset("Wan2.1_14b", "mine") == config
        assert load_families()["Wan2.1_14b"].default == "psa_balanced"

    def test_keeps_what_the_file_holds(self, tmp_path: Path) -> None:
        file = tmp_path / "M.yaml"
        file.write_text(UPSTREAM_FILE, encoding="utf-8")
        before = load_presets(file)
        save_preset("M", "a", PSAConfig(warmup_steps=1), tmp_path)
        save_preset("M", "b", PSAConfig(warmup_steps=2), tmp_path)
        save_preset("M", "a", PSAConfig(warmup_steps=3), tmp_path)
        after = load_presets(file)
        assert {name: config.warmup_steps for name, config in after.pop("M").items()} == {"a": 3, "b": 2}
        assert after == before
        assert [path.name for path in tmp_path.iterdir()] == ["M.yaml"]

    def test_a_text_length_of_its_own_is_refused_not_lost(self, tmp_path: Path) -> None:
        save_preset("M", "a", PSAConfig(text_length=226), tmp_path)
        with pytest.raises(ConfigError, match=r"text_length = 0: M\.yaml has 226"):
            save_preset("M", "b", PSAConfig(), tmp_path)
        assert list(load_presets(tmp_path)["M"]) == ["a"]

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
