"""Mean pooling from its definition. The oracle of this folder."""

from __future__ import annotations

import torch


def pooled_rows(x: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of one pyramid level: row j is the mean of tokens ``level * j .. level * j + level - 1`` that exist.

    Args:
        x: ``[B, H, L, D]``.

    Returns:
        rows ``[B, H, ceil(L / level), D]`` and the number of tokens each stands for, ``[ceil(L / level)]``.
    """
    groups = x.split(level, dim=2)
    return torch.stack([group.mean(2) for group in groups], 2), x.new_tensor([group.shape[2] for group in groups])
