"""The cosine cap in plain torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch


def similarity_cap_torch(k: torch.Tensor, block_n: int, thresholds: Mapping[int, float]) -> torch.Tensor:
    """The coarsest level of every key block; arguments and result as in the oracle."""
    length = k.shape[2]
    k_blocks = math.ceil(length / block_n)
    wide = torch.promote_types(k.dtype, torch.float32)
    cap = torch.ones((*k.shape[:2], 1, k_blocks), dtype=torch.uint8, device=k.device)
    for level, threshold in thresholds.items():
        pairs = length // level
        first, last = k[:, :, : pairs * level : level], k[:, :, level - 1 :: level]
        similarity = torch.nn.functional.cosine_similarity(first.to(wide), last.to(wide), dim=-1)
        per_block = block_n // level
        padded = torch.nn.functional.pad(similarity, (0, k_blocks * per_block - pairs))
        whole = (pairs - per_block * torch.arange(k_blocks, device=k.device)).clamp(0, per_block)
        # 0 / 0 is NaN, which exceeds nothing.
        mean = padded.unflatten(-1, (k_blocks, per_block)).sum(-1) / whole
        cap.masked_fill_((mean > threshold)[:, :, None], level)
    return cap
