"""Permutations of video tokens that put neighbours in space and time into the same block."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ...settings.config import PSAConfig
from ...settings.sizes import Grid
from ..device_cache import device_cache
from .gilbert import gilbert_order
from .lines import columns_order, rows_order
from .orders import Orders, first_order
from .tile import tile_order

__all__ = ["METHODS", "Orders", "order_index", "reorder_orders"]

METHODS: dict[str, Callable[[Grid, Grid], np.ndarray]] = {
    "Raster": lambda grid, tile_size: np.arange(math.prod(grid), dtype=np.int64),
    "Gilbert": lambda grid, tile_size: gilbert_order(grid),
    "Tile": tile_order,
    "Rows": lambda grid, tile_size: rows_order(grid),
    "Columns": lambda grid, tile_size: columns_order(grid),
}


def reorder_orders(
    config: PSAConfig, grid: Grid, start: int, batch: int, heads: int, device: torch.device, behind: int = 0
) -> Orders | None:
    """The one order that a config has for all heads; None when nothing is reordered.

    Args:
        grid, start, behind: as of :func:`order_index`.

    Returns:
        Orders on ``device`` for ``[B, H]``, whose tensors are cached there.
    """
    if not config.use_rearrange:
        return None
    index = order_index((config.rearrange_method,), grid, config.tile_size, start, device, behind)
    return Orders(index, first_order(batch, heads, device))


def order_index(
    methods: tuple[str, ...], grid: Grid, tile_size: Grid, start: int, device: torch.device, behind: int = 0
) -> torch.Tensor:
    """The index of one order after another.

    Args:
        methods: names of ``METHODS``.
        grid: (frames, height, width) in tokens.
        tile_size: the same of a tile, which no method but ``"Tile"`` reads.
        start, behind: tokens in front of the video and behind it; they stay where they are.

    Returns:
        int64 ``[len(methods), start + frames * height * width + behind]`` on ``device``, cached there: row o is where
        each token of order o comes from, ``reordered = tokens[index[o]]``.
    """
    return _cached_index(methods, tuple(grid), tuple(tile_size), start, behind, device)


# A sampling run meets a handful of shapes (context windows, batches of prompts); 1 MB an order at 130k tokens.
@device_cache(maxsize=16)
def _cached_index(
    methods: tuple[str, ...], grid: Grid, tile_size: Grid, start: int, behind: int, device: torch.device
) -> torch.Tensor:
    stop = start + math.prod(grid)
    front, back = np.arange(start), np.arange(stop, stop + behind)
    orders = [np.concatenate([front, METHODS[method](grid, tile_size) + start, back]) for method in methods]
    # NumPy 1 counts in int32 on Windows.
    return torch.tensor(np.stack(orders), dtype=torch.int64, device=device)
