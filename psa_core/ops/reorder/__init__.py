"""Permutations of video tokens that put neighbours in space and time, or tokens that are alike, into the same block."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ...settings.config import PSAConfig
from ...settings.orders import ORDERS_BY_CONTENT, RASTER
from ...settings.sizes import Grid
from ..device_cache import device_cache
from .by_content import Content, content_index
from .gilbert import gilbert_order
from .lines import columns_order, rows_order
from .orders import Orders, first_order
from .tile import tile_order

__all__ = ["METHODS", "Orders", "order_index", "orders_of_heads", "reorder_orders"]

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
        config: whose method is one of ``METHODS``.
        grid, start, behind: as in :func:`order_index`.

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


def orders_of_heads(
    methods: tuple[str, ...],
    of_head: torch.Tensor,
    grid: Grid | None,
    tile_size: Grid,
    start: int,
    tokens: tuple[int, int],
    content: Content | None = None,
) -> Orders:
    """The order of each head, by its own method.

    Args:
        methods: names of ``METHODS``, and ``"Semantic"`` or ``"Hybrid"``, which need the content. All need the grid but
            ``"Semantic"``, and ``"Raster"`` beside it.
        of_head: int32 ``[B, H]`` on the device: the number of each head's method.
        grid, tile_size, start: as in :func:`order_index`.
        tokens: in all, of queries and of keys.
        content: clusters of the call.
    """
    if not any(method in ORDERS_BY_CONTENT for method in methods):
        assert grid is not None
        behind = tokens[1] - start - math.prod(grid)
        return Orders(order_index(methods, grid, tile_size, start, of_head.device, behind), of_head)
    assert content is not None
    own = torch.arange(of_head.numel(), dtype=torch.int32, device=of_head.device).view(of_head.shape)
    queries, keys = (
        _index_of_heads(methods, of_head, grid, tile_size, start, length, clusters.nearest)
        for length, clusters in zip(tokens, content, strict=True)
    )
    return Orders(keys, own, Orders(queries, own))


def _index_of_heads(
    methods: tuple[str, ...],
    of_head: torch.Tensor,
    grid: Grid | None,
    tile_size: Grid,
    start: int,
    length: int,
    nearest: torch.Tensor,
) -> torch.Tensor:
    """A row for each head of each batch entry, int32 ``[B * H, L]``, where any may have its own."""
    behind, index = length - start - nearest.shape[2], None
    for number, method in enumerate(methods):
        if method in ORDERS_BY_CONTENT:
            rows = content_index(method, nearest, grid, tile_size, start, behind)
        elif method == RASTER:
            rows = torch.arange(length, dtype=torch.int32, device=nearest.device)[None]
        else:
            assert grid is not None
            rows = order_index((method,), grid, tile_size, start, nearest.device, behind).int()
        index = rows if index is None else torch.where(of_head.flatten()[:, None] == number, rows, index)
    assert index is not None
    return index


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
