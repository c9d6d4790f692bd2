"""Why calls stay dense: what every host asks."""

from __future__ import annotations

import pytest
import torch

from psa_core import PSAConfig
from psa_core.hosts import reasons
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run


def test_memory_that_is_free_again_between_two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["no free memory", None]
    monkeypatch.setattr(reasons, "triton_refusal", lambda device, dtype, head_dim: answers.pop(0))
    run, q, place = Run(PSAConfig(min_tokens=0)), torch.ones(1, 1, 64, 64), Place(0, 0, (1, 8, 8))
    assert run.dense_reason(q, q, place) == "no free memory"
    assert run.dense_reason(q, q, place) is None
