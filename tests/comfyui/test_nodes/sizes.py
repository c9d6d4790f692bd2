"""Widgets and random tensors shared by the test nodes."""

from __future__ import annotations

import torch
from comfy_api.latest import io


def size_inputs() -> list[io.Input]:
    """Any latent size at all, odd ones included, which core's own nodes would round."""
    return [io.Int.Input(name, default=1, min=1, max=4096) for name in ("frames", "height", "width")]


def random_tensor(seed: int, *shape: int) -> torch.Tensor:
    """Normal noise from a generator of its own, so that sampling noise is left as it was."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
