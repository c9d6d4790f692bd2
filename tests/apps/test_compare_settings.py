"""``psa compare``: what a command line means, and what it refuses before it looks for any weights."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from psa_core import RadialMask, Schedule, load_presets
from psa_core.apps.cli import main
from psa_core.apps.compare.command import add_options, read_settings
from psa_core.apps.compare.comparison_settings import Clip, CompareSettings, for_warm_up
from psa_core.apps.generate.models import MODELS
from psa_core.apps.packages import install_command
from psa_core.settings.dial import DIAL_PRESETS
from psa_core.settings.presets import PRESETS_DIR_VARIABLE

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PRESETS_DIR_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def settings_of(model: str, *words: str) -> CompareSettings:
    """The settings of a command line with a prompt."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return read_settings(parser.parse_args(["--model", model, "--prompt", "star", *words]))


@pytest.mark.parametrize("model", [name for name, facts in MODELS.items() if facts.pipeline])
def test_by_default_every_sparse_preset_but_the_dial_s_is_compared(model: str) -> None:
    settings = settings_of(model)
    presets = load_presets()[MODELS[model].presets or model]
    sparse = {name: config for name, config in presets.items() if config.type != "dense"}
    # Models with no other sparse presets have the dial's.
    expected = {name: config for name, config in sparse.items() if name not in DIAL_PRESETS} or sparse
    assert {preset.preset: preset.config for preset in settings.presets} == expected
    assert settings.dense.config.type == "dense"
    assert (settings.seeds, settings.measure_errors, settings.output) == ((0,), True, Path("psa-compare"))


def test_qualities_stand_beside_presets() -> None:
    presets = load_presets()["Wan2.1_14b"]
    both = settings_of("Wan2.1_14b", "--presets", "psa_balanced", "auto_fast", "--quality", "fast", "near_dense")
    assert [preset.preset for preset in both.presets] == ["psa_balanced", "auto_fast", "auto_near_dense"]
    (alone,) = settings_of("Wan2.1_14b", "--quality", "balanced").presets
    assert (alone.preset, alone.config) == ("auto_balanced", presets["auto_balanced"])


def test_videos_differ_in_nothing_but_the_attention() -> None:
    settings = settings_of("CogVideo_5b", "--presets", "psa_balanced", "psa_4steps", "--guidance", "3")
    assert {(x.steps, x.guidance, x.width, x.prompts) for x in settings.attentions} == {(50, 3.0, 720, ("star",))}
    # A distilled model's steps, where nothing else is compared.
    distilled = settings_of("CogVideo_5b", "--presets", "psa_4steps")
    assert {(x.steps, x.guidance) for x in distilled.attentions} == {(4, 1.0)}
    own = settings_of("CogVideo_5b", "--presets", "psa_4steps", "--steps", "6")
    assert {(x.steps, x.guidance) for x in own.attentions} == {(6, 1.0)}


def test_clips_are_every_prompt_with_every_seed_once() -> None:
    settings = settings_of("Wan2.1_14b", "--prompt", "y", "--seeds", "2", "1", "2")
    assert settings.clips == [Clip("star", 2), Clip("star", 1), Clip("y", 2), Clip("y", 1)]


def test_options_of_the_attention_change_every_preset() -> None:
    settings = settings_of("Wan2.1_14b", "--schedule", "last_dense=2", "--min-tokens", "7", "--no-errors")
    assert not settings.measure_errors
    assert {(x.config.schedule, x.config.min_tokens) for x in settings.presets} == {(Schedule(last_dense=2), 7)}
    assert settings.dense.config.schedule is None


def test_weights_are_loaded_for_the_most_demanding_attention() -> None:
    settings = settings_of("Wan2.1_14b", "--presets", "baseline", "psa_balanced")
    assert settings.strictest.preset == "psa_balanced"
    assert settings_of("Wan2.1_14b", "--presets", "baseline").strictest.preset == "dense"


def test_a_warm_up_runs_sparse_from_the_first_step() -> None:
    radial = ["--radial", "dense_timesteps=2", "last_dense_timesteps=1", "decay_factor=0.5"]
    settings = settings_of("Wan2.1_14b", "--presets", "psa_balanced", "--schedule", "warmup=50%", *radial)
    warm_up = for_warm_up(settings.presets[0], 2)
    assert (warm_up.steps, warm_up.config.warmup_steps, warm_up.config.schedule) == (2, 0, None)
    assert warm_up.config.radial == RadialMask(decay_factor=0.5)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--model", "Flux"], "--model = 'Flux': must be one of Wan2.1_1.3b, "),
        (["--presets", "psa_balanced", "best"], "--presets = 'best': Wan2.1_14b has baseline, psa_balanced, "),
        (["--presets", "baseline", "--radial"], "--presets = 'baseline': is dense, so that --radial would do nothing"),
        (["--quality", "fast", "best"], "--quality = 'best': must be one of fast, balanced, near_dense"),
        (["--presets-file", "/no/such"], "no preset file or folder at /no/such"),
        (["--seeds", "0", "-1"], "--seeds = -1: must be a whole number from 0 to "),
        (["--width", "712"], "--width = 712: must be a multiple of 16, 32 or more, for Wan2.1_14b"),
        (["--frames", "80"], "--frames = 80: must be a multiple of 4 and one more: 5, 9, 13 ..."),
        (["--steps", "0"], "--steps = 0: must be 1 or more"),
        (["--backend", "cuda"], "--backend = 'cuda': must be one of auto, triton, torch"),
        (["--prompt", " "], "--prompt = ' ': must not be empty"),
        (["--lora", "/no/such"], "--lora = '/no/such': must be a .safetensors file, or a folder with "),
        (["--radial", "scene_boundaries=0,30,90"], "scene_boundaries = (0, 30, 90): 90 lies beyond the "),
    ],
)
def test_what_a_user_can_set_right_is_one_line_and_exit_code_2(capsys, words: list[str], error: str) -> None:
    assert main(["compare", "--model", "Wan2.1_14b", "--prompt", "x", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"psa: {error}")
    assert err.count("\n") == 1
    assert not Path("psa-compare").exists()


def test_a_prompt_is_needed(capsys) -> None:
    assert main(["compare", "--model", "Wan2.1_14b"]) == 2
    assert "there is no prompt to make a video of" in capsys.readouterr().err


def test_presets_need_a_sparse_one_and_the_name_of_the_reference_is_taken(capsys, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    dial = "".join(f"    {name}: {{type: dense}}\n" for name in DIAL_PRESETS)
    file.write_text(f"Wan2.1_14b:\n  attention_configs:\n{dial}")
    assert main(["compare", "--model", "Wan2.1_14b", "--prompt", "x", "--presets-file", str(file)]) == 2
    assert capsys.readouterr().err == "psa: --presets = None: Wan2.1_14b has no sparse one\n"
    file.write_text("Wan2.1_14b:\n  attention_configs:\n    dense: {type: psa}\n")
    assert main(["compare", "--model", "Wan2.1_14b", "--prompt", "x", "--presets-file", str(file)]) == 2
    assert "--presets = 'dense': is what the others are compared with" in capsys.readouterr().err


def test_without_its_packages_it_says_how_to_install_them(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ("diffusers", "skimage")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    assert main(["compare", "--model", "Wan2.1_1.3b", "--prompt", "x"]) == 2
    assert capsys.readouterr().err == f"psa: psa compare needs diffusers, skimage: {install_command('compare')}\n"


def test_the_command_line_is_read_without_its_packages() -> None:
    code = (
        "import sys, psa_core.apps.cli; "
        "print(sorted({'diffusers', 'skimage', 'matplotlib', 'imageio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
