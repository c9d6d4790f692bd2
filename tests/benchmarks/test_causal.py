"""The benchmark of causal attention: what it checks before it measures."""

from __future__ import annotations

from functools import partial

import pytest
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import causal
from benchmarks.causal import Heads, check
from psa_core.apps.bench.checks import WrongResultError


def test_level_1_is_checked_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = Heads(4, 2, 64)
    assert check(heads, "cpu", "torch", 300) < 1e-2
    monkeypatch.setattr(causal, "dense", partial(scaled_dot_product_attention, enable_gqa=True))
    with pytest.raises(WrongResultError, match="PSA at level 1"):
        check(heads, "cpu", "torch", 300)
