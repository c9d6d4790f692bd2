"""Preset files: the bundled values, upstream's schema unchanged, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from psa_core import ConfigError, PSAConfig, RadialMask, load_preset, load_presets
from psa_core.settings.mask_ratios import quota_density
from psa_core.settings.preset_schema import read_preset_file
from psa_core.settings.presets import PRESETS_DIR_VARIABLE, load_families
from psa_core.settings.sizes import HEAD_SIZES

from ..support.preset_files import FAMILIES, LANGUAGE_MODELS, LARGE, UPSTREAM_FILE, in_files, write

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


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRESETS_DIR_VARIABLE, raising=False)


class TestBundled:
    def test_families(self) -> None:
        families = {name: family for name, family in load_families().items() if not family.host}
        assert {name: (f.text_length, tuple(f.video_scale.values())) for name, f in families.items()} == FAMILIES
        for family in families.values():
            assert family.default == ("psa_balanced" if family.name in (*LARGE, "tiny_video") else "auto_balanced")
            assert family.notes == ()
            assert family.heads > 1
            assert family.head_dim in HEAD_SIZES
            assert list(family.video_scale) == ["width_divisor", "height_divisor", "depth_divisor"]
            assert family.presets["baseline"].type == "dense"
            assert {config.text_length for config in family.presets.values()} == {family.text_length}
            assert all(config.description for config in family.presets.values())

    def test_language_models(self) -> None:
        families = {name: family for name, family in load_families().items() if family.host}
        assert families.keys() == LANGUAGE_MODELS
        for family in families.values():
            assert (family.host, family.default, family.notes) == ("transformers", "psa_topk", ())
            assert quota_density(family.presets["psa_topk"].mask_ratios) == pytest.approx(0.15)

    @pytest.mark.parametrize(
        ("model", "preset", "block_n", "reorder", "sim_mask", "mode", "impl", "bounds", "warmup", "x8"), UPSTREAM
    )
    def test_upstream_values(
        self,
        model: str,
        preset: str,
        block_n: int,
        reorder: bool,
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
            use_rearrange=reorder,
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

    @pytest.mark.parametrize("model", LARGE)
    def test_every_family_has_a_preset_for_few_steps(self, model: str) -> None:
        presets = load_presets()[model]
        few = [config for name, config in presets.items() if name in ("psa_few_steps", "psa_4steps")]
        assert few
        assert all(config.warmup_steps <= 1 and config.type == "psa" for config in few)

    @pytest.mark.parametrize("model", LARGE)
    @pytest.mark.parametrize(("name", "layers", "steps"), [("short", 1, 3), ("medium", 2, 5), ("long", 3, 8)])
    def test_every_family_has_radial_presets_by_length(self, model: str, name: str, layers: int, steps: int) -> None:
        radial = load_preset(model, f"radial_{name}").radial
        assert radial == RadialMask(mode="radial only", decay_factor=1.0, dense_layers=layers, dense_timesteps=steps)

    def test_default_preset(self) -> None:
        assert load_preset("Wan2.1_14b") == load_preset("Wan2.1_14b", "psa_balanced")

    def test_unknown_names_list_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"model = 'Wan3': must be one of Any, CogVideo1\.5_5b, .*Wan2\.2_A14B"):
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
        assert {model: list(presets) for model, presets in in_files(file).items()} == {
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

    def test_settings_that_upstream_refuses_together_work(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        config = load_preset("Wan2.1_14b", "capped", file)
        assert (config.use_sim_mask, config.attn_impl) == (True, "new_mask_type")
        assert caplog.records == []

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
            ({"heads": 0}, "heads = 0: must be a whole number, 1 or more"),
            ({"head_dim": True}, "head_dim = True: must be a whole number"),
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

    @pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
    def test_empty_file_says_that_it_holds_nothing(
        self, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = tmp_path / "f.yaml"
        file.write_text(text, encoding="utf-8")
        assert load_presets(file) == {}
        assert caplog.messages == ["file = 'f.yaml': holds nothing: write presets into it, or delete it"]
        errors: list[ConfigError] = []
        assert load_families(file, errors=errors) == {}
        assert list(map(str, errors)) == caplog.messages

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
            load_presets(tmp_path / "nothing.yaml")


class TestCalibrated:
    def test_a_file_says_mode_target_and_how_long_maps_live(self, tmp_path: Path) -> None:
        presets = {
            "dense_enough": {"mask_mode": "calibrated", "target_density": 0.2, "map_steps": 4},
            "near_enough": {"mask_mode": "calibrated", "target_error": 0.08, "candidate_orders": ["Rows", "Semantic"]},
        }
        held = in_files(write(tmp_path / "mine.yaml", presets))["M"]
        assert held == {
            "dense_enough": PSAConfig(mask_mode="calibrated", target_density=0.2, map_steps=4),
            "near_enough": PSAConfig(mask_mode="calibrated", target_error=0.08, candidate_orders=("Rows", "Semantic")),
        }

    @pytest.mark.parametrize(
        ("preset", "words"),
        [
            ({"mask_mode": "topk", "target_error": 0.1}, "target_error = 0.1: needs mask_mode calibrated, not topk"),
            (
                {"mask_mode": "calibrated", "target_error": 0.1, "target_density": 0.2},
                "target_error = 0.1: must not stand beside target_density = 0.2",
            ),
            ({"map_steps": 0}, "map_steps = 0: must be a whole number, 1 or more"),
        ],
    )
    def test_refusals_name_file_model_and_preset(self, tmp_path: Path, preset: dict[str, object], words: str) -> None:
        with pytest.raises(ConfigError, match=f"^mine.yaml: M: p: {words}"):
            load_presets(write(tmp_path / "mine.yaml", {"p": preset}))
