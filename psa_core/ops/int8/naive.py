"""Rounding to INT8 from its definition. The oracle of this folder."""

from __future__ import annotations

import torch

# What the largest magnitude becomes.
INT8_TOP = 127.0


def in_int8(x: torch.Tensor, dims: tuple[int, ...] = (-1,)) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps, int8 as x is shaped, and what a step stands for, float32 with an extent of 1 in ``dims``.

    Args:
        x: any shape and dtype.
        dims: over which numbers share a scale.
    """
    largest = x.float().abs().amax(dims, keepdim=True)
    # In float32, as kernels do: of two steps as near, another one would be another logit.
    steps = x.float() * torch.where(largest > 0, INT8_TOP / largest, 0.0)
    return (steps + 0.5).floor().to(torch.int8), largest / INT8_TOP
