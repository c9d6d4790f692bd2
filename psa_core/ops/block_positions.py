"""Where the tokens of some blocks are."""

from __future__ import annotations

from itertools import chain

import torch

from .device_cache import device_cache


@device_cache(maxsize=32)
def block_positions(
    blocks: tuple[int, ...], size: int, length: int, device: torch.device, stride: int = 1
) -> torch.Tensor:
    """Positions of what some blocks hold, int64 ``[n]``, in a sequence that is cut into blocks.

    Args:
        blocks: their numbers, ascending: none but the last block of a sequence is ragged.
        size: of a block.
        length: of the sequence.
        stride: take the first of so many, again and again in each block.
    """
    at = chain.from_iterable(range(block * size, min((block + 1) * size, length), stride) for block in blocks)
    return torch.tensor(list(at), device=device)
