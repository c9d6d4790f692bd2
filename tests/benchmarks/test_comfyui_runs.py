"""Whole runs in ComfyUI: what needs no GPU of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks import causal
from benchmarks.comfyui_runs import CLIPS, DENSE, Run, _tokens, main, run_table
from psa_core import load_preset


def test_tokens_are_those_of_the_models() -> None:
    assert {_tokens(clip) for clip in CLIPS} == {64_800, 75_600, 32_760, 17_776}


def test_presets_take_the_same_time_on_random_weights() -> None:
    """Bounds on importance depend on the content, which random weights do not have."""
    presets = [load_preset(clip.model, each.preset) for clip in CLIPS for each in clip.patched]
    assert {preset.mask_mode for preset in presets} == {"topk", "calibrated"}
    assert all(preset.target_error is None for preset in presets)


def test_ratios_are_of_a_clip_s_own_runs() -> None:
    slow = Run(CLIPS[1], 75_600, DENSE, 9.0, 120.0, (6.0,) * 20, 8.0)
    steps = (6.0,) * 5 + (3.0,) + (1.5,) * 14
    fast = dataclasses.replace(slow, attention="psa_topk", seconds=40.0, step_seconds=steps, memory=8.5)
    dial = dataclasses.replace(fast, attention=CLIPS[1].patched[-1].name, seconds=30.0, choosing=0.6)
    other = dataclasses.replace(slow, seconds=60.0)
    rows = run_table([slow, fast, dial, other, dial]).splitlines()[2:]
    assert [row.split(" | ")[6] for row in rows] == ["3.00x", "4.00x", "2.00x"]
    assert "auto_balanced, dense calls by cudnn, 5 dense" in rows[1]
    assert "8.0 / 8.5 GiB" in rows[0]
    # The first sparse step, in which recipes are chosen, is no typical one.
    assert "| 6.00 / 1.50 s | 4.00x |  |" in rows[0]
    assert "| 4.00x | 2.00% |" in rows[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it measures")
def test_what_a_user_can_set_right_is_one_line(capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert capsys.readouterr().err.endswith(f"error: {tmp_path} is not ComfyUI's folder\n")
    (tmp_path / "comfy").mkdir()
    for command, words in ((main, [str(tmp_path)]), (causal.main, [])):
        with pytest.raises(SystemExit):
            command(words)
        assert capsys.readouterr().err.endswith("needs a CUDA GPU, and torch sees none here\n")
