"""The benchmark of whole prompts, on a tiny model."""

from __future__ import annotations

import pytest
import torch

from benchmarks.prefill import check, qwen2_5_vl_7b
from psa_core.apps.bench.checks import WrongResultError


def test_level_1_is_checked_before_anything_is_measured() -> None:
    torch.manual_seed(0)
    model = qwen2_5_vl_7b(layers=1, hidden=128, heads=2, kv_heads=1, inner=64).float()
    assert check(model, 300, "torch") < 1e-3
    model.model.layers[0].self_attn.sliding_window = 64
    with pytest.raises(WrongResultError, match="no call ran sparse"):
        check(model, 300, "torch")
