"""Block list: the form of a level map that kernels read."""

from __future__ import annotations

from typing import NamedTuple

import torch


class BlockList(NamedTuple):
    """Per query block, the key blocks it keeps, level by level.

    Attributes:
        blocks: int32 ``[B, H, q_blocks, k_blocks]``: the key blocks of level 1, then those of level 2, 4 ... each in
            ascending order; what stands behind the kept ones means nothing.
        counts: int32 ``[B, H, q_blocks, n_levels]``: how many there are of level ``2 ** i``.
    """

    blocks: torch.Tensor
    counts: torch.Tensor


def build_block_list(levels: torch.Tensor, max_level: int) -> BlockList:
    """Derive the block list of a level map.

    Args:
        levels: uint8 ``[B, H, q_blocks, k_blocks]``, powers of two up to ``max_level``; anything else is skipped.
    """
    # Unsigned wrap-around sends skipped (0 - 1 = 255) behind every level, where values that are no level must go too;
    # stable keeps blocks in memory order.
    below = levels - 1
    rank = below.masked_fill(levels & below != 0, 255)
    order = torch.sort(rank.contiguous(), dim=-1, stable=True).indices
    counts = [(levels == 1 << i).sum(-1, dtype=torch.int32) for i in range(max_level.bit_length())]
    return BlockList(order.to(torch.int32), torch.stack(counts, -1))
