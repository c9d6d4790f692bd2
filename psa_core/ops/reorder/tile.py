"""Tiles: the video cut into small boxes, box after box."""

from __future__ import annotations

import numpy as np


def tile_order(grid: tuple[int, int, int], tile_size: tuple[int, int, int]) -> np.ndarray:
    """The order that visits a grid tile by tile, in raster order among and within tiles.

    Args:
        grid: (frames, height, width) in tokens, each 1 or more.
        tile_size: the same of a tile; tiles at the far sides may be smaller.

    Returns:
        int64 ``[frames * height * width]``: token indices, numbered frame by frame, row by row.
    """
    # Stable: within a tile tokens stay in raster order.
    return np.argsort(tile_numbers(grid, tile_size), kind="stable").astype(np.int64)


def tile_numbers(grid: tuple[int, int, int], tile_size: tuple[int, int, int]) -> np.ndarray:
    """The number of each token's tile, tiles counted in raster order; arguments and result as in :func:`tile_order`."""
    tiles = [-(-extent // size) for extent, size in zip(grid, tile_size, strict=True)]
    tile = np.indices(grid, np.int64) // np.reshape(tile_size, (3, 1, 1, 1))
    return np.ravel_multi_index(list(tile), tiles).ravel().astype(np.int64)
