"""Mean pooling from its definition. The oracle of this folder."""

from __future__ import annotations

import math

import torch


def pooled_rows(x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of one pyramid level: row j is the mean of tokens ``level * j .. level * j + level - 1`` that exist.

    Args:
        x: ``[B, H, L, D]``.

    Returns:
        rows ``[B, H, ceil(L / level), D]`` and the number of tokens each stands for, ``[ceil(L / level)]``.
    """
    rows = math.ceil(x.shape[2] / level)
    count = (x.shape[2] - level * torch.arange(rows, device=x.device)).clamp(max=level).to(x.dtype)
    padded = torch.nn.functional.pad(x, (0, 0, 0, rows * level - x.shape[2]))
    return padded.unflatten(2, (rows, level)).sum(3) / count[:, None], count
