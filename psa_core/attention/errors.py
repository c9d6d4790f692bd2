"""Relative errors, as norms by norms."""

from __future__ import annotations

import torch

_TINY = torch.finfo(torch.float32).tiny


def squares(x: torch.Tensor) -> torch.Tensor:
    """Squared norms of matrices, ``[...]`` of ``[..., n, D]``."""
    return x.square().sum((-2, -1))


def relative_error(wrong: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Norm by norm, from squares."""
    return (wrong / right.clamp_min(_TINY)).sqrt()
