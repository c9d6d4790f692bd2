"""The cosine cap from its definition, block by block in float64. The oracle of this folder."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def similarity_cap_naive(k: torch.Tensor, block_n: int, thresholds: Mapping[int, float]) -> torch.Tensor:
    """The coarsest level of every key block; arguments and result as in ``similarity_cap``, with
    ``thresholds`` from levels 2, 4, 8 to similarities.
    """
    blocks = []
    for block in k.double().split(block_n, 2):
        cap = torch.ones(k.shape[:2], dtype=torch.uint8, device=k.device)
        for level, threshold in thresholds.items():
            starts = [s for s in range(0, block.shape[2], level) if s + level <= block.shape[2]]
            if starts:
                pairs = [torch.cosine_similarity(block[:, :, s], block[:, :, s + level - 1], -1) for s in starts]
                cap[torch.stack(pairs).mean(0) > threshold] = level
        blocks.append(cap)
    return torch.stack(blocks, -1)[:, :, None]
