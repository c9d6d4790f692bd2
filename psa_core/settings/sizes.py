"""Sizes that settings, masks and calls have in common."""

from __future__ import annotations

Grid = tuple[int, int, int]
"""Frames, height and width of a video in tokens."""

BLOCK_M = (64, 128)
BLOCK_N = (32, 64, 128)
# Of attention that runs sparse.
HEAD_SIZES = (64, 128)

# Of transformer blocks; no model has as many.
MOST_LAYERS = 1000
