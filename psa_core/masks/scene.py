"""Scene mask: frames of scenes that may not see each other are skipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..settings.radial import check_references
from ..settings.scenes import Adjacency, adjacency_matrix, check_scenes, read_boundaries, scene_of_frame
from ..settings.sizes import Grid
from .blocks import blocks_of, check_tokens, hold_references


def scene_levels(
    grid: Grid,
    boundaries: str | Sequence[int],
    adjacency: Adjacency = "neighbours",
    *,
    block_m: int,
    block_n: int,
    text_length: int = 0,
    frames_per_token: int = 1,
    reference_frames: Sequence[int] = (0, 0),
) -> torch.Tensor:
    """The level map of scenes over tokens in raster order, text first.

    A pair of blocks is kept where any frame of the query block may see any frame of the key block. A frame of tokens
    belongs to the scene of the middle one of its video frames.

    Args:
        grid: (frames, height, width) in tokens.
        boundaries: the first frame of every scene and the end of the last, n + 1 numbers for n scenes, as
            :func:`read_boundaries` reads them.
        adjacency: which scenes see which, as :func:`read_adjacency` reads it; row i says what scene i may attend to.
        block_m, block_n: tokens a query block and a key block.
        text_length: tokens in front of the video; they see and are seen by all.
        frames_per_token: how boundaries are counted. 1: in frames of tokens. 4 or 8: in video frames, of which the
            first is alone in its latent frame and every four that follow share one; a frame of tokens holds one
            latent frame (4) or two (8).
        reference_frames: how many frames of the grid come before the clip and after it: pictures that see and are seen
            by all, which boundaries do not count.

    Returns:
        uint8 ``[1, 1, q_blocks, k_blocks]`` on the CPU: 1 kept, 0 skipped.

    Raises:
        ConfigError: an argument is not allowed, or the scenes do not fit the grid; the message names it.
    """
    check_tokens(grid, block_m, block_n, text_length)
    check_references(reference_frames)
    frames = grid[0] - sum(reference_frames)
    check_scenes(boundaries, adjacency, frames, frames_per_token)
    boundaries = read_boundaries(boundaries)
    matrix = adjacency_matrix(adjacency, len(boundaries) - 1)
    queries, keys = blocks_of(grid, block_m, text_length), blocks_of(grid, block_n, text_length)
    # Reference frames get a number as well; what holds them is kept whatever it is.
    scene = np.pad(scene_of_frame(boundaries, frames, frames_per_token), tuple(reference_frames), "edge")
    # Scenes go up along the frames, so that a block holds a run of them.
    seen = _any_in_run(matrix, scene[queries.first], scene[queries.last])
    levels = _any_in_run(seen.T, scene[keys.first], scene[keys.last]).T
    rows, columns = (
        (blocks.start < 0) | hold_references(blocks, grid[0], reference_frames) for blocks in (queries, keys)
    )
    levels = levels | rows[:, None] | columns
    return torch.tensor(levels, dtype=torch.uint8, device="cpu")[None, None]


def _any_in_run(matrix: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whether a column of ``matrix`` has any True from row ``first`` to row ``last``; bool ``[runs, columns]``."""
    count = np.zeros((len(matrix) + 1, matrix.shape[1]), np.int32)
    np.cumsum(matrix, axis=0, out=count[1:])
    return count[last + 1] > count[first]
