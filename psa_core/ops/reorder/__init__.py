"""Permutations of video tokens that put neighbours in space and time into the same block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ...settings.config import PSAConfig
from ...settings.sizes import Grid
from ..device_cache import device_cache
from .gilbert import gilbert_order
from .tile import tile_order

METHODS: dict[str, Callable[[Grid, Grid], np.ndarray]] = {
    "Gilbert": lambda grid, tile_size: gilbert_order(grid),
    "Tile": tile_order,
}


def reorder_index(config: PSAConfig, grid: Grid, text_length: int, device: torch.device) -> torch.Tensor | None:
    """Where each token of the reordered sequence comes from; None when nothing is reordered.

    Args:
        grid: (frames, height, width) in tokens.
        text_length: tokens in front of the video; they stay where they are.

    Returns:
        int64 ``[text_length + frames * height * width]`` on ``device``, cached there: ``reordered = tokens[index]``.
    """
    if not config.use_rearrange:
        return None
    return _cached_index(config.rearrange_method, tuple(grid), config.tile_size, text_length, device)


def restore_index(config: PSAConfig, grid: Grid, text_length: int, device: torch.device) -> torch.Tensor:
    """The inverse of :func:`reorder_index`: ``tokens = reordered[restore]``."""
    return _cached_restore(config.rearrange_method, tuple(grid), config.tile_size, text_length, device)


# A sampling run meets a handful of shapes (context windows, batches of prompts); 1 MB an entry at 130k tokens.
@device_cache(maxsize=16)
def _cached_index(method: str, grid: Grid, tile: Grid, text_length: int, device: torch.device) -> torch.Tensor:
    video = METHODS[method](grid, tile) + text_length
    order = np.concatenate([np.arange(text_length), video])
    # NumPy 1 counts in int32 on Windows.
    return torch.tensor(order, dtype=torch.int64, device=device)


@device_cache(maxsize=16)
def _cached_restore(method: str, grid: Grid, tile: Grid, text_length: int, device: torch.device) -> torch.Tensor:
    return torch.argsort(_cached_index(method, grid, tile, text_length, device))
