"""Whole runs in ComfyUI: what needs no GPU of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.comfyui_runs import CLIPS, Run, _tokens, main, run_table
from psa_core import load_preset
from psa_core.ops.backends import BackendError


def test_tokens_are_those_of_the_models() -> None:
    assert {_tokens(clip) for clip in CLIPS} == {75_600, 32_760, 17_776}


def test_presets_take_the_same_time_on_random_weights() -> None:
    """Bounds on importance depend on the content, which random weights do not have."""
    assert {load_preset(clip.model, clip.preset).mask_mode for clip in CLIPS} == {"topk"}


def test_ratio_is_of_a_clip_s_own_runs() -> None:
    slow = Run(CLIPS[0], 75_600, "dense", 9.0, 120.0, 8.0)
    fast = dataclasses.replace(slow, attention="psa_topk", seconds=40.0, memory=8.5, line="PSA: density 0.100")
    (row,) = run_table([slow, fast]).splitlines()[2:]
    assert "3.00x" in row
    assert "8.0 / 8.5 GiB" in row


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it measures")
def test_no_gpu_is_said(tmp_path) -> None:
    with pytest.raises(BackendError, match="CUDA GPU"):
        main([str(tmp_path)])
