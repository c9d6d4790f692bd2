"""Schedulers as other packs register them: ComfyUI lists them beside its own, and nothing of them is safe to call."""

from __future__ import annotations

import time
from typing import Any

import comfy.samplers
import torch


def add_odd_schedulers() -> None:
    """Register them with ComfyUI, for as long as the server runs."""
    handlers = {
        "psa_test_divides_by_zero": comfy.samplers.SchedulerHandler(_divides_by_zero),
        "psa_test_not_finite": comfy.samplers.SchedulerHandler(_not_finite),
        "psa_test_slow": comfy.samplers.SchedulerHandler(_slow),
        "psa_test_bare": _not_finite,
    }
    for name, handler in handlers.items():
        comfy.samplers.SCHEDULER_HANDLERS[name] = handler
        comfy.samplers.SCHEDULER_NAMES.append(name)


def _divides_by_zero(model_sampling: Any, steps: int) -> torch.Tensor:
    """As RES4LYF's bong_tangent for one step."""
    return torch.tensor([1 - i / (steps - 1) for i in range(steps)] + [0.0])


def _not_finite(model_sampling: Any, steps: int) -> torch.Tensor:
    return torch.full((steps + 1,), float("nan"))


def _slow(model_sampling: Any, steps: int) -> torch.Tensor:
    time.sleep(1)
    return torch.linspace(1, 0, steps + 1)
