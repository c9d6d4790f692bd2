"""What the doctor found, as text, as JSON and on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from psa_core import __version__
from psa_core.apps.bench.results import PSA, Machine, Results, Row
from psa_core.apps.bench.rivals import INT8
from psa_core.apps.cli import main
from psa_core.apps.doctor.clip import Clip
from psa_core.apps.doctor.diagnosis import Diagnosis
from psa_core.apps.doctor.measure import HostAttention

OWN = HostAttention("the host's own", scaled_dot_product_attention)


def made_up_diagnosis() -> Diagnosis:
    """Rows of every kind, of some of a model's heads."""
    clip = Clip.of("Wan2.1_14b", 1280, 720, 81)
    case = replace(clip.case(), heads=10)
    rows = [
        Row.of("doctor", case, OWN.name, ms=200.0, ratio=1.0, error=2e-3),
        Row.of("doctor", case, PSA, preset="psa_balanced", ms=50.0, ratio=4.0, error=3e-3, reached_density=0.2),
        Row.of("doctor", case, INT8, refusal="comfy-kitchen is not installed"),
    ]
    machine = Machine(
        "Imaginary GPU", "1.2", "0.0", "0.0", "2000-01-01", "9.0", "Python", __version__, "0.33.0", "0123abcd"
    )
    return Diagnosis([("psa", "here")], clip, Results(machine, OWN.name, rows))


def test_the_text_has_a_line_for_each_attention() -> None:
    lines = made_up_diagnosis().text().splitlines()

    assert lines[0] == "psa  here"
    assert lines[2] == (
        "PSA, preset psa_balanced is 4.00x as fast as the host's own: 75,600 tokens (Wan2.1_14b, 1280 x 720, 81 "
        "frames), 40 heads of 128 (10 of them measured, to stay under a minute)"
    )
    assert lines[4:8] == [
        "| attention                | ms     | speed-up | error   | density |",
        "| --- | --- | --- | --- | --- |",
        "| the host's own           | 200.00 | 1.00x    | 2.0e-03 | 1       |",
        "| PSA, preset psa_balanced | 50.00  | 4.00x    | 3.0e-03 | 0.20    |",
    ]
    assert lines[9] == "- comfy-kitchen INT8: comfy-kitchen is not installed"


def test_the_json_has_the_machine_the_shapes_and_every_row() -> None:
    diagnosis = made_up_diagnosis()

    document = json.loads(diagnosis.as_json())

    assert document["machine"] == {
        "gpu": "Imaginary GPU",
        "driver": "1.2",
        "torch": "0.0",
        "triton": "0.0",
        "date": "2000-01-01",
        "capability": "9.0",
        "system": "Python",
        "psa": __version__,
        "comfyui": "0.33.0",
        "source": "0123abcd",
    }
    assert document["clip"] == diagnosis.clip.text()
    assert document["not_measured"] is None
    assert [(row["attention"], row["ms"], row["ratio"], row["error"]) for row in document["rows"]] == [
        (row.attention, row.ms, row.ratio, row.error) for row in diagnosis.results.rows
    ]
    assert all((row["tokens"], row["heads"], row["head_dim"]) == (75_600, 10, 128) for row in document["rows"])
    assert set(document["units"]) >= {"ms", "ratio", "error", "reached_density"}


def test_findings_can_be_posted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "somebody" / "ComfyUI" / "user" / "psa_presets"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PSA_PRESETS_DIR", str(folder))

    assert main(["doctor"]) == 0

    out = capsys.readouterr().out
    assert ".../ComfyUI/user/psa_presets: 0 presets of 0 models" in out
    assert "somebody" not in out


@pytest.fixture
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.usefixtures("without_a_gpu")
def test_the_command_says_the_same_and_writes_json(capsys, tmp_path: Path) -> None:
    file = tmp_path / "doctor.json"
    assert main(["doctor", "--measure", "--model", "CogVideo_5b", "--frames", "49", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n\nNot measured: measuring speed needs a CUDA GPU, and torch sees none here\n")
    document = json.loads(file.read_text(encoding="utf-8"))
    assert "CogVideo_5b, 832 x 480, 49 frames" in document["clip"]
    assert main(["doctor", "--measure", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == document["findings"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "x.json"], "psa: --json = 'x.json': needs --measure beside it\n"),
        (["--model", "Wan2.1_14b"], "psa: --model = 'Wan2.1_14b': needs --measure beside it\n"),
        (["--frames", "5"], "psa: --frames = '5': needs --measure beside it\n"),
        (["--measure", "--width", "0"], "psa: --width = 0: must be 1 or more\n"),
        (["--measure", "--model", "Flux"], "psa: --model = 'Flux': must be one of Any, CogVideo1.5_5b, "),
    ],
)
def test_options_that_do_not_fit_are_refused(capsys, arguments: list[str], said: str) -> None:
    assert main(["doctor", *arguments]) == 2
    assert capsys.readouterr().err.startswith(said)
