"""Settings and prompts for tests of the transformers host."""

from __future__ import annotations

from typing import Any

import pytest

from psa_core import PSAConfig
from psa_core.hosts import transformers as host

from ...support.language_models import MODELS, prompt

FULL = PSAConfig(block_n=32, mask_ratios={1: (0, 1)}, min_tokens=0)
SPARSE = FULL.replace(mask_mode="topk", mask_ratios={1: (0, 0.3), 2: (0.3, 0.5), 4: (0.5, 0.6), 0: (0.6, 1)})
TOKENS = 200

every_model = pytest.mark.parametrize("make", MODELS)


def patched(model: Any, config: PSAConfig = FULL, **options: Any) -> host.Handle:
    return host.patch(model, config, backend="torch", **options)


def padded(starts: list[int], stops: list[int], tokens: int = TOKENS) -> dict[str, Any]:
    """A batch with padding in front of prompts and behind them."""
    inputs = prompt(tokens, len(starts))
    for row, start, stop in zip(inputs["attention_mask"], starts, stops, strict=True):
        row[:start], row[stop:] = 0, 0
    return inputs
