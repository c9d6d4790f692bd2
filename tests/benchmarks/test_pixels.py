"""The pixel study: its prompts, its measures, its table, and a run of clips that a CPU can make."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks.pixels.cases import (
    CALIBRATED,
    KEPT,
    PRESET,
    SETTINGS,
    STUDIES,
    WARM_UPS,
    Study,
    prompt,
)
from benchmarks.pixels.results import TARGETS, PixelRow, pixel_table
from benchmarks.study.capture import Clip
from psa_core.apps.cli import main
from psa_core.models.tiny_video.vocabulary import read_prompt

ROW = PixelRow("320 x 384", PRESET, 0.15, (19.0, 24.0, 26.0, 31.0), (0.9,) * 4, (0.5,) * 4, 1.0)


def test_prompts_are_different_and_of_the_models_words() -> None:
    prompts = [prompt(number) for number in range(max(study.clips for study in STUDIES))]
    words = [read_prompt(text) for text in prompts]
    assert len(set(words)) == len(words)


def test_studies_are_of_enough_clips() -> None:
    assert [(study.name, study.clips) for study in STUDIES] == [("320 x 384", 16), ("640 x 768", 8)]
    assert all(0.25 <= study.dense_steps / study.steps <= 0.35 for study in STUDIES)


def test_studies_have_names_of_their_own() -> None:
    names = [study.name for study in (*STUDIES, *WARM_UPS)]
    assert len(set(names)) == len(names)


def test_a_table_has_medians_quartiles_and_other_videos() -> None:
    refused = PixelRow("320 x 384", "Sol-Attn", refusal="not installed")
    lines = pixel_table([ROW, refused]).splitlines()[2:]
    numbers = "0.150 | 25.00 dB | 25.00 (22.75, 27.25) | 1 | 0.9000 | 0.500"
    assert lines[0] == f"| 4 of 320 x 384 | {PRESET} | {numbers} |"
    assert lines[1].startswith("| 320 x 384 | Sol-Attn: not installed | - |")


def test_targets_are_gains_over_clips() -> None:
    better = dataclasses.replace(ROW, setting=CALIBRATED, psnr=tuple(x + 2 for x in ROW.psnr))
    told = {target.name: target.line([ROW, better])[2:] for target in TARGETS}
    assert told[f"calibrated above {PRESET}, 320 x 384"] == ("2.00 dB", "met")
    assert told[f"calibrated above {PRESET}, 640 x 768"] == ("", "not measured")


def test_clips_of_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("skimage")
    from benchmarks.pixels.measure import run_pixels

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    one_of_each = {PRESET, f"{KEPT}, first-block-cache 0.2"}
    settings = tuple(x for x in SETTINGS if x.name in one_of_each or x.prompts_apart or x.sol)
    study = Study(Clip(128, 160, 5), clips=2, steps=3, dense_steps=1, batch=2, settings=settings)
    rows, file = run_pixels([study], tmp_path)
    taking_part = [row for row in rows if row.refusal is None]
    assert [row.setting for row in rows] == [setting.name for setting in settings]
    assert {row.setting for row in rows if row.refusal} <= {x.name for x in SETTINGS if x.sol}
    for row in taking_part:
        assert len(row.psnr) == len(row.ssim) == len(row.flicker) == 2
        assert all(10 < x < 100 for x in row.psnr)
    assert [row["setting"] for row in json.loads(file.read_text())["rows"]] == [row.setting for row in rows]


def test_options_that_do_not_go_together(capsys) -> None:
    assert main(["bench", "--pixels", "--only", "masks"]) == 2
    assert "has no meaning beside --pixels" in capsys.readouterr().err
    assert main(["bench", "--pixels", "--cases", "Wan"]) == 2
    assert "is part of none of these names: 320 x 384; 640 x 768; " in capsys.readouterr().err
