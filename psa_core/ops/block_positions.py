"""Where the tokens of some blocks are."""

from __future__ import annotations

import torch

from .device_cache import device_cache


@device_cache(maxsize=32)
def block_positions(blocks: tuple[int, ...], size: int, length: int, device: torch.device) -> torch.Tensor:
    """Positions of what some blocks hold, int64 ``[len(blocks) * size]``, in a sequence that is cut into blocks.

    All are whole: what a ragged block lacks repeats its last.

    Args:
        blocks: their numbers.
        size: of a block.
        length: of the sequence.
    """
    start = torch.tensor(blocks, device=device)[:, None] * size
    return (start + torch.arange(size, device=device)).clamp_(max=length - 1).flatten()
