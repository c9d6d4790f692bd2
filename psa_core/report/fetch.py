"""Numbers of many small tensors, with few waits for the GPU."""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch


def fetch(tensors: list[torch.Tensor]) -> list[Any]:
    """Tensors as numbers or lists of them, in their order, with one wait for each device and size."""
    alike: dict[tuple[torch.device, torch.Size], list[int]] = {}
    for i, x in enumerate(tensors):
        alike.setdefault((x.device, x.shape), []).append(i)
    numbers: list[Any] = [None] * len(tensors)
    for places in alike.values():
        for i, number in zip(places, torch.stack([tensors[i] for i in places]).tolist(), strict=True):
            numbers[i] = number
    return numbers


def for_json(number: float) -> float | None:
    """A number as JSON has it: null for what is none."""
    return number if isfinite(number) else None
