"""Tests of the transformers host run without gradients, but where they say so."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield
