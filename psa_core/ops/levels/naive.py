"""Level selection from its rules, row by row in Python. The oracle of this folder."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def select_levels_naive(
    importance: torch.Tensor, mask_ratios: Mapping[int, tuple[float, float]], mask_mode: str, min_full_ratio: float
) -> torch.Tensor:
    """The level of every block pair; arguments and result as of ``psa_core.levels.select_levels``."""
    rows = importance.reshape(-1, importance.shape[-1]).tolist()
    levels = [_select_row(row, mask_ratios, mask_mode, min_full_ratio) for row in rows]
    return torch.tensor(levels, dtype=torch.uint8).reshape(importance.shape)


def _select_row(
    row: list[float], mask_ratios: Mapping[int, tuple[float, float]], mask_mode: str, min_full_ratio: float
) -> list[int]:
    levels = [0] * len(row)
    mass = 0.0
    for rank, block in enumerate(sorted(range(len(row)), key=lambda block: -row[block])):
        position = rank / len(row) if mask_mode == "topk" else mass
        for level, (lo, hi) in mask_ratios.items():
            # With all importance spent (1.0, or a last bit more) a block belongs to the last level in use.
            if lo <= position < hi or (lo < hi == 1.0 <= position):
                levels[block] = level
        if mask_mode == "thresholdbound" and rank / len(row) < min_full_ratio:
            levels[block] = 1
        mass += row[block]
    return levels


def similarity_cap_naive(k: torch.Tensor, block_n: int, thresholds: Mapping[int, float]) -> torch.Tensor:
    """The cosine cap of every key block; ``thresholds`` maps levels 2, 4, 8 to similarities."""
    blocks = []
    for block in k.double().split(block_n, 2):
        cap = torch.ones(k.shape[:2], dtype=torch.uint8)
        for level, threshold in thresholds.items():
            starts = [s for s in range(0, block.shape[2], level) if s + level <= block.shape[2]]
            if starts:
                pairs = [torch.cosine_similarity(block[:, :, s], block[:, :, s + level - 1], -1) for s in starts]
                cap[torch.stack(pairs).mean(0) > threshold] = level
        blocks.append(cap)
    return torch.stack(blocks, -1)[:, :, None]
