"""The ``psa`` command: what it prints, where, and with which exit code."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from psa_core import RadialMask, Schedule, __version__, load_presets
from psa_core.apps import cli
from psa_core.apps.cli import main
from psa_core.apps.compare.comparison_settings import Clip
from psa_core.apps.packages import install_command
from psa_core.settings.presets import PRESETS_DIR_VARIABLE

from ..support.preset_files import write

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_presets_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRESETS_DIR_VARIABLE, raising=False)


def write_preset(folder: Path, *lines: str) -> Path:
    """A preset file of one model with one preset, and more lines of settings in it."""
    file = folder / "mine.yaml"
    preset = "\n".join(f"      {line}" for line in ("type: psa", *lines))
    file.write_text(f"MyModel:\n  attention_configs:\n    fast:\n{preset}\n", encoding="utf-8")
    return file


def test_presets_lists_every_preset_and_marks_defaults(capsys) -> None:
    assert main(["presets"]) == 0
    out, err = capsys.readouterr()
    for model, presets in load_presets().items():
        assert f"\n{model}\n" in out
        for preset in presets:
            assert preset in out
    assert "1: 40%  2: 10%  4: 10%  8: 20%  skip: 20%" in out
    assert out.count("\n*  ") == len(load_presets())
    assert err == ""


def test_presets_of_one_model(capsys) -> None:
    assert main(["presets", "--model", "Wan2.1_14b"]) == 0
    out, _ = capsys.readouterr()
    assert "Wan2.1_14b" in out
    assert "CogVideo" not in out


def test_the_package_run_as_a_module_is_the_command(capsys) -> None:
    assert main(["presets", "--model", "Wan2.1_14b"]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "psa_core", "presets", "--model", "Wan2.1_14b"],
        cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, capsys.readouterr().out), done.stderr
    wrong = subprocess.run([sys.executable, "-m", "psa_core", "presets", "--model", "none"], cwd=ROOT, check=False)
    assert wrong.returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_stdout_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    file = write_preset(tmp_path, "description: 狐狸 in snow")
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["presets", "--path", str(file)]) == 0
    stdout.flush()
    assert r"\u72d0\u72f8 in snow" in written.getvalue().decode(encoding)
    assert stdout.errors == "strict"


def test_presets_show_what_calibrated_attention_aims_at(capsys, tmp_path: Path) -> None:
    aims = {"dense_enough": {"target_density": 0.2}, "near_enough": {"target_error": 0.08}, "silent": {}}
    presets = {name: {"mask_mode": "calibrated", **aim} for name, aim in aims.items()}
    assert main(["presets", "--path", str(write(tmp_path / "mine.yaml", presets))]) == 0
    rows = {name: row for row in capsys.readouterr().out.splitlines() for name in aims if f" {name} " in row}
    assert all("calibrated" in row for row in rows.values())
    assert "density: 0.2" in rows["dense_enough"]
    assert "error: 0.08" in rows["near_enough"]
    assert "density: 0.15" in rows["silent"]


def test_presets_shows_what_is_odd_about_a_file(capsys, tmp_path: Path) -> None:
    file = write_preset(tmp_path, "warmup_step: 3")
    assert main(["presets", "--path", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "MyModel" in out
    assert err == "psa: mine.yaml: MyModel: fast: unknown key 'warmup_step' is ignored; did you mean 'warmup_steps'?\n"


def test_a_message_has_the_command_s_name_alone(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("psa_core.hosts.run")
    monkeypatch.setattr(cli, "preset_table", lambda *_: log.warning("PSA: %s", "calls stay dense"))
    assert main(["presets"]) == 0
    assert capsys.readouterr().err == "psa: calls stay dense\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["presets", "--model", "Flux"], "psa: --model = 'Flux': must be one of Any, CogVideo1.5_5b, "),
        (["presets", "--path", "/no/such/file"], "psa: no preset file or folder at "),
        (["demo", "--width", "100"], "psa: --width = 100: must be a multiple of 16, 32 or more, for tiny_video\n"),
        (["demo", "--frames", "10"], "psa: --frames = 10: must be a multiple of 4 and one more: "),
    ],
)
def test_what_a_user_can_set_right_is_one_line_and_exit_code_2(capsys, arguments: list[str], error: str) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(error)
    assert err.count("\n") == 1


def test_a_path_of_several_lines_is_named_in_one(capsys, tmp_path: Path) -> None:
    assert main(["presets", f"--path={tmp_path}/a\nb\x1b[2Jc"]) == 2

    assert capsys.readouterr().err == f"psa: no preset file or folder at {tmp_path}/a\\nb\\x1b[2Jc\n"


def test_a_preset_file_with_a_wrong_value_names_it(capsys, tmp_path: Path) -> None:
    file = write_preset(tmp_path, "warmup_steps: -1")
    assert main(["presets", "--path", str(file)]) == 2
    assert capsys.readouterr().err.startswith("psa: mine.yaml: MyModel: fast: warmup_steps = -1: must be ")


def test_demo_says_how_to_install_what_is_missing(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = ("diffusers", "matplotlib")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == f'psa: psa demo needs diffusers, matplotlib: pip install -e "{ROOT}[demo]"\n'


def test_packages_of_a_wheel_are_installed_by_its_name(tmp_path: Path) -> None:
    assert install_command("demo", tmp_path) == 'pip install "pyramid-sparse-attention[demo]"'


def test_demo_hands_its_options_on_and_prints_a_table(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("matplotlib")
    pytest.importorskip("imageio_ffmpeg")
    given = []
    monkeypatch.setattr("psa_core.apps.demo.run_demo", lambda settings: given.append(settings) or "density 0.5")
    words = ["--output", str(tmp_path), "--steps", "5", "--width", "64", "--seed", "7"]
    assert main(["demo", *words, "--schedule", "last_dense=1", "--radial", "mode=coarsen"]) == 0
    (settings,) = given
    assert settings.output == tmp_path
    for psa in settings.presets:
        assert psa.config.schedule == Schedule(last_dense=1)
        assert psa.config.radial == RadialMask(mode="coarsen")
        assert (psa.steps, psa.width, settings.seeds) == (5, 64, (7,))
    assert settings.clips == [Clip("a red circle moving left over gray stripes", 7)]
    assert capsys.readouterr().out == f"density 0.5\nvideos and pictures are in {tmp_path}\n"


def test_doctor_finds_its_way_without_a_gpu(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["doctor"]) == 0
    out, _ = capsys.readouterr()
    assert torch.__version__ in out
    assert "no NVIDIA or AMD GPU that torch can see" in out
    assert "cannot run without one" in out
    assert f"{PRESETS_DIR_VARIABLE} is not set" in out
    assert f"{len(load_presets())} models" in out


def test_doctor_reports_a_broken_preset_folder_of_the_users(capsys, monkeypatch, tmp_path: Path) -> None:
    write_preset(tmp_path, "warmup_steps: -1")
    monkeypatch.setenv(PRESETS_DIR_VARIABLE, str(tmp_path))
    assert main(["doctor"]) == 0
    assert "warmup_steps = -1" in capsys.readouterr().out


@pytest.mark.parametrize(("value", "said"), [("torch", "torch"), ("cuda", "PSA_BACKEND = 'cuda': must be one of")])
def test_doctor_says_what_is_taken_out(capsys, monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    card = SimpleNamespace(name="Card", major=9, minor=0, total_memory=1 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setenv("PSA_BACKEND", value)
    assert main(["doctor"]) == 0
    out, _ = capsys.readouterr()
    assert re.search(rf"^PSA_BACKEND +{said}", out, re.MULTILINE)
    refused = re.findall(r"^the Triton kernels +(b?float16) cannot run: PSA_BACKEND =", out, re.MULTILINE)
    assert refused == ["float16", "bfloat16"]


@pytest.mark.gpu
def test_doctor_says_that_the_kernels_can_run(capsys) -> None:
    assert main(["doctor"]) == 0
    out, _ = capsys.readouterr()
    assert torch.cuda.get_device_name() in out
    assert "bfloat16 can run" in out


def test_version_and_help(capsys) -> None:
    for arguments, said in ((["--version"], f"psa {__version__}"), (["--help"], "doctor"), (["demo", "--help"], "320")):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["generate", "--steps", "many"], ["demo", "--steps", "many"]])
def test_what_the_parser_refuses_is_exit_code_2(capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: psa" in capsys.readouterr().err
