"""``psa generate``: what a command line means, and what it refuses before it looks for any weights."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest
import torch

from psa_core import RadialMask, Schedule, load_presets
from psa_core.apps.cli import main
from psa_core.apps.generate.command import add_options, read_settings
from psa_core.apps.generate.models import MODELS
from psa_core.apps.generate.video_settings import GenerateSettings
from psa_core.apps.packages import install_command
from psa_core.settings.presets import PRESETS_DIR_VARIABLE

from ..support.preset_files import LARGE

NAMES = ", ".join(MODELS)


@pytest.fixture(autouse=True)
def _nothing_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PRESETS_DIR_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def settings_of(model: str, *words: str) -> GenerateSettings:
    """The settings of a command line with a prompt."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return read_settings(parser.parse_args(["--model", model, "--prompt", "x", *words]))


@pytest.mark.parametrize(
    ("model", "hub_id", "size", "steps", "guidance", "guidance_2", "flow_shift", "fps"),
    [
        ("Wan2.1_1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", (1280, 720, 69), 50, 5, None, 5, 16),
        ("Wan2.1_14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers", (1280, 720, 69), 50, 5, None, 5, 16),
        ("Wan2.2_5B", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", (1280, 704, 121), 50, 5, None, 5, 24),
        ("Wan2.2_A14B", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", (1280, 768, 69), 40, 4, 3, 5, 16),
        ("CogVideo_2b", "zai-org/CogVideoX-2b", (720, 480, 49), 50, 6, None, None, 8),
        ("CogVideo_5b", "zai-org/CogVideoX-5b", (720, 480, 49), 50, 6, None, None, 8),
        ("CogVideo1.5_5b", "zai-org/CogVideoX1.5-5B", (1360, 768, 81), 50, 6, None, None, 16),
    ],
)
def test_defaults_are_the_models(model, hub_id, size, steps, guidance, guidance_2, flow_shift, fps) -> None:
    settings = settings_of(model)
    assert settings.path == hub_id
    assert (settings.width, settings.height, settings.frames) == size
    assert (settings.steps, settings.guidance, settings.guidance_2) == (steps, guidance, guidance_2)
    assert (settings.flow_shift, settings.facts.frames_per_second) == (flow_shift, fps)
    assert (settings.preset, settings.config) == ("psa_balanced", load_presets()[model]["psa_balanced"])
    assert (settings.seed, settings.backend, settings.loras, settings.output) == (0, "auto", (), Path("psa-generate"))


def test_every_model_of_videos_with_presets_is_there() -> None:
    assert {*LARGE, "tiny_video"} <= set(MODELS)
    language = {"Language", "Qwen2.5-VL", "Qwen3-VL"}
    made = {facts.presets or name for name, facts in MODELS.items()}
    assert made == set(load_presets()) - language - {"Any"}


def test_the_preset_of_the_distilled_model_brings_its_steps_and_guidance() -> None:
    distilled = settings_of("CogVideo_5b", "--preset", "psa_4steps")
    assert (distilled.steps, distilled.guidance) == (4, 1.0)
    own = settings_of("CogVideo_5b", "--preset", "psa_4steps", "--steps", "8", "--guidance", "2")
    assert (own.steps, own.guidance) == (8, 2.0)


def test_guidance_of_ones_own_is_for_both_experts() -> None:
    settings = settings_of("Wan2.2_A14B", "--guidance", "1")
    assert (settings.guidance, settings.guidance_2) == (1.0, 1.0)


def test_options_of_the_attention_change_the_preset() -> None:
    words = ["--min-tokens", "5", "--max-extra-memory", "1.5", "--schedule", "last_dense=2", "--radial", "mode=coarsen"]
    config = settings_of("Wan2.1_14b", *words).config
    preset = load_presets()["Wan2.1_14b"]["psa_balanced"]
    changed = {"schedule": Schedule(last_dense=2), "radial": RadialMask(mode="coarsen")}
    assert config == preset.replace(min_tokens=5, max_extra_memory=1.5, **changed)
    # What is not given stays as the preset has it.
    medium = load_presets()["Wan2.1_14b"]["radial_medium"]
    assert settings_of("Wan2.1_14b", "--preset", "radial_medium").config == medium


def test_a_quality_is_a_preset_of_the_model() -> None:
    settings = settings_of("Wan2.1_14b", "--quality", "fast", "--min-tokens", "5")
    assert (settings.preset, settings.steps) == ("auto_fast", 50)
    assert settings.config == load_presets()["Wan2.1_14b"]["auto_fast"].replace(min_tokens=5)


def test_a_preset_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("Wan2.1_14b:\n  attention_configs:\n    fast: {type: psa, warmup_steps: 2}\n")
    settings = settings_of("Wan2.1_14b", "--presets-file", str(file))
    assert (settings.preset, settings.config.warmup_steps) == ("fast", 2)


def test_weights_are_in_half_precision_on_a_gpu_and_wans_decoder_is_not() -> None:
    pytest.importorskip("diffusers", minversion="0.35")
    from psa_core.apps.generate.pipeline import dtypes

    gpu, half = torch.device("cuda"), torch.bfloat16
    assert dtypes(settings_of("Wan2.1_14b"), gpu) == {"default": half, "vae": torch.float32}
    assert dtypes(settings_of("CogVideo_5b"), gpu) == {"default": half, "vae": half}
    assert dtypes(settings_of("CogVideo_2b"), gpu) == {"default": torch.float16, "vae": torch.float16}
    assert dtypes(settings_of("CogVideo_2b"), torch.device("cpu")) == {"default": torch.float32}


@pytest.mark.parametrize(
    ("model", "words", "error"),
    [
        ("Flux", [], f"--model = 'Flux': must be one of {NAMES}"),
        (
            "CogVideo_2b",
            ["--preset", "psa_4steps"],
            "--preset = 'psa_4steps': CogVideo_2b has baseline, psa_balanced, ",
        ),
        ("CogVideo_2b", ["--presets-file", "/no/such"], "no preset file or folder at /no/such"),
        ("CogVideo_2b", ["--prompt", " "], "--prompt = ' ': must not be empty"),
        (
            "CogVideo_2b",
            ["--prompt-file", "/no/such"],
            "--prompt-file = '/no/such': cannot be read: No such file or directory",
        ),
        ("CogVideo_2b", ["--prompt-file", "/"], "--prompt-file = '/': cannot be read: Is a directory"),
        ("CogVideo_2b", ["--steps", "0"], "--steps = 0: must be 1 or more"),
        ("CogVideo_2b", ["--guidance", "nan"], "--guidance = nan: must be a number, 0 or more"),
        ("CogVideo_2b", ["--seed", "-1"], "--seed = -1: must be a whole number from 0 to "),
        ("CogVideo_2b", ["--width", "712"], "--width = 712: must be a multiple of 16, 32 or more, for CogVideo_2b"),
        ("CogVideo_2b", ["--height", "16"], "--height = 16: must be a multiple of 16, 32 or more, for CogVideo_2b"),
        ("Wan2.2_5B", ["--height", "720"], "--height = 720: must be a multiple of 32, 64 or more, for Wan2.2_5B"),
        ("Wan2.1_14b", ["--frames", "80"], "--frames = 80: must be a multiple of 4 and one more: 5, 9, 13 ..."),
        ("Wan2.1_14b", ["--frames", "1"], "--frames = 1: must be a multiple of 4 and one more: 5, 9, 13 ..."),
        ("Wan2.1_14b", ["--min-tokens", "-1"], "--min-tokens = -1: must be a whole number, 0 or more"),
        ("Wan2.1_14b", ["--precision", "fp4"], "--precision = 'fp4': must be one of bf16, int8, int8+fp8, auto"),
        ("Wan2.1_14b", ["--quality", "best"], "--quality = 'best': must be one of fast, balanced, near_dense"),
        (
            "Wan2.1_14b",
            ["--quality", "fast", "--preset", "auto_fast"],
            "--quality = 'fast': must not stand beside --preset: leave one of them out",
        ),
        ("Wan2.1_14b", ["--backend", "cuda"], "--backend = 'cuda': must be one of auto, triton, torch"),
        ("Wan2.1_14b", ["--schedule", "warm=1"], "--schedule = 'warm=1': must be KEY=VALUE with a key of "),
        (
            "Wan2.1_14b",
            ["--preset", "baseline", "--radial"],
            "--preset = 'baseline': is dense, so that --radial would ",
        ),
        ("Wan2.1_14b", ["--radial", "scene_boundaries=0,30,90"], "scene_boundaries = (0, 30, 90): 90 lies beyond the "),
        ("CogVideo_2b", ["--lora", "/no/such"], "--lora = '/no/such': must be a .safetensors file, or a folder with "),
        (
            "CogVideo_2b",
            ["--lora", "/"],
            "--lora = '/': must be a .safetensors file, or a folder with one, which holds",
        ),
    ],
)
def test_what_a_user_can_set_right_is_one_line_and_exit_code_2(capsys, model: str, words: list[str], error) -> None:
    assert main(["generate", "--model", model, "--prompt", "x", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"psa: {error}")
    assert err.count("\n") == 1
    assert not Path("psa-generate").exists()


def test_a_prompt_is_needed(capsys, tmp_path: Path) -> None:
    assert main(["generate", "--model", "Wan2.1_14b"]) == 2
    message = "psa: --prompt, --prompt-file = None: there is no prompt to make a video of\n"
    assert capsys.readouterr() == ("", message)
    file = tmp_path / "prompts"
    file.write_bytes(b"\xff\xfe\x00\xd8")
    assert main(["generate", "--model", "Wan2.1_14b", "--prompt-file", str(file)]) == 2
    assert "must be a text file in UTF-8" in capsys.readouterr().err


def test_prompts_of_a_file_come_after_those_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffOne fox\n\n  # no prompt\n  Two foxes # 2 \r\n", encoding="utf-8")
    settings = settings_of("Wan2.1_1.3b", "--prompt", "y", "--prompt-file", str(file))
    assert settings.prompts == ("x", "y", "One fox", "Two foxes # 2")


@pytest.mark.parametrize(
    ("model", "frames", "ends"),
    # 81 video frames are 21 latent ones, and CogVideoX1.5 makes tokens of two, the last of which it fills up.
    [("Wan2.1_14b", 81, "81"), ("CogVideo_5b", 49, "49"), ("CogVideo1.5_5b", 81, "85")],
)
def test_scenes_are_checked_against_the_clip(model: str, frames: int, ends: str) -> None:
    words = ["--frames", str(frames), "--radial"]
    assert settings_of(model, *words, f"scene_boundaries=0,24,{ends}").config.radial is not None
    with pytest.raises(ValueError, match="lies beyond the end"):
        settings_of(model, *words, "scene_boundaries=0,24,90")


def test_without_its_packages_it_says_how_to_install_them(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "lora.safetensors").touch()
    absent = ("diffusers", "peft")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    for words, names in (([], "diffusers"), (["--lora", str(tmp_path)], "diffusers, peft")):
        assert main(["generate", "--model", "Wan2.1_1.3b", "--prompt", "x", *words]) == 2
        assert capsys.readouterr().err == f"psa: psa generate needs {names}: {install_command('generate')}\n"
