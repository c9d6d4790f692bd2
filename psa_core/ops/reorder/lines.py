"""Lines of the picture over time: one row, or one column, of all frames after another."""

from __future__ import annotations

import numpy as np


def rows_order(grid: tuple[int, int, int]) -> np.ndarray:
    """The order that visits a row of the picture in every frame before the next row.

    Args:
        grid: (frames, height, width) in tokens, each 1 or more.

    Returns:
        int64 ``[frames * height * width]``: token indices, numbered frame by frame, row by row.
    """
    return _by_axes(grid, (1, 0, 2))


def columns_order(grid: tuple[int, int, int]) -> np.ndarray:
    """The order that visits a column of the picture in every frame before the next; args and result as there."""
    return _by_axes(grid, (2, 0, 1))


def _by_axes(grid: tuple[int, int, int], axes: tuple[int, int, int]) -> np.ndarray:
    tokens = np.arange(grid[0] * grid[1] * grid[2], dtype=np.int64)
    return tokens.reshape(grid).transpose(axes).ravel()
