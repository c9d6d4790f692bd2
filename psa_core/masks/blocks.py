"""Where blocks of tokens lie among the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..settings.errors import ConfigError
from ..settings.sizes import BLOCK_M, BLOCK_N, Grid
from ..settings.validation import check_choice, check_whole


class Blocks(NamedTuple):
    """Where the blocks of one axis of the level map lie, counted in video tokens: those of text are negative.

    Attributes:
        start, stop: int64 ``[blocks]``, the tokens of each block, without ``stop``.
        first, last: int64 ``[blocks]``, the frames of its first and last token; 0 for text.
    """

    start: np.ndarray
    stop: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def take(self, index: np.ndarray) -> Blocks:
        """Some of the blocks."""
        return Blocks(*(field[index] for field in self))


def blocks_of(grid: Grid, size: int, text_length: int) -> Blocks:
    """The blocks of ``size`` tokens of a sequence, text first."""
    frames, height, width = grid
    video = frames * height * width
    start = np.arange(-text_length, video, size, dtype=np.int64)
    stop = np.minimum(start + size, video)
    return Blocks(start, stop, start.clip(0) // (height * width), (stop - 1).clip(0) // (height * width))


def hold_references(blocks: Blocks, frames: int, reference_frames: Sequence[int]) -> np.ndarray:
    """Which blocks hold a token of a reference frame; bool ``[blocks]``.

    Args:
        frames: of the sequence, those of references among them.
        reference_frames: how many of them come before the clip and after it.
    """
    before, after = reference_frames
    return (blocks.stop > 0) & ((blocks.first < before) | (blocks.last >= frames - after))


def check_tokens(grid: Any, block_m: Any, block_n: Any, text_length: Any) -> None:
    """The arguments that say where blocks lie are allowed.

    Raises:
        ConfigError: one is not; the message names it.
    """
    whole = isinstance(grid, tuple | list) and all(type(size) is int for size in grid)
    if not whole or len(grid) != 3 or min(grid) < 1:
        raise ConfigError("grid", grid, "must be three whole numbers, 1 or more: frames, height, width")
    check_choice("block_m", block_m, BLOCK_M)
    check_choice("block_n", block_n, BLOCK_N)
    check_whole("text_length", text_length, 0)
