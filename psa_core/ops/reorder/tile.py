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
    position = np.indices(grid)
    tile = position // np.reshape(tile_size, (3, 1, 1, 1))
    keys = [*tile, *position]
    # lexsort takes its most significant key last.
    return np.lexsort([key.ravel() for key in reversed(keys)])
