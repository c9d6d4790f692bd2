"""Radial mask: attention between frames narrows with their distance (RadialAttention, arXiv 2506.19852)."""

from __future__ import annotations

import numpy as np
import torch

from ..settings.radial import MASK_RULES, SPARSITY_TYPES, check_factor
from ..settings.sizes import Grid
from ..settings.validation import check_choice, check_whole
from .blocks import Blocks, blocks_of, check_tokens

_SMALL_FRAME = 2**14
"""From here on int16 does not hold twice a frame's tokens. Below, half the bytes take half the time."""


def radial_levels(
    grid: Grid,
    *,
    block_m: int,
    block_n: int,
    model_type: str,
    decay_factor: float = 1.0,
    text_length: int = 0,
    block_size: int = 128,
    sparsity_type: str = "radial",
    coarsen: bool = False,
) -> torch.Tensor:
    """The level map of the radial mask over tokens in raster order, text first.

    Tokens of frames at distance d see each other within a window around the same position, which halves each time d
    doubles (:func:`frame_window`). A key block is kept where more than 0.6 of the columns that the mask touches are
    covered in more than a third of the query block's rows. A row of the map can be empty where frames are so small
    that many meet in one query block.

    With ``coarsen`` the mask skips nothing. A pair of blocks that it would skip is pooled instead, by
    ``2 ** (d.bit_length() - 1)`` between 2 and 8, where d is the smallest distance between a frame of the query block
    and a frame of the key block: resolution halves as the window does, each time d doubles. This rule is the
    project's own; RadialAttention skips.

    Memory grows with the number of pairs of blocks and with that of tokens, never with the square of tokens.

    Args:
        grid: (frames, height, width) in tokens.
        block_m, block_n: tokens a query block and a key block.
        model_type: ``"wan"`` (neighbouring frames in full, every frame sees the first) or ``"cogvideox"``.
        decay_factor: scales the window of distant frames.
        text_length: tokens in front of the video; they see and are seen by all.
        block_size: least window, and the threshold below which frame pairs are thinned out.
        sparsity_type: ``"dense"`` keeps everything.
        coarsen: pool what the mask would skip.

    Returns:
        uint8 ``[1, 1, q_blocks, k_blocks]`` on the CPU: 1 kept, 0 skipped; with ``coarsen`` 2, 4 or 8 instead of 0.

    Raises:
        ConfigError: an argument is not allowed; the message names it.
    """
    check_tokens(grid, block_m, block_n, text_length)
    check_choice("model_type", model_type, MASK_RULES)
    check_choice("sparsity_type", sparsity_type, SPARSITY_TYPES)
    check_choice("coarsen", coarsen, (False, True))
    check_whole("block_size", block_size, 1)
    check_factor(decay_factor)
    queries = blocks_of(grid, block_m, text_length)
    keys = blocks_of(grid, block_n, text_length)
    if sparsity_type == "dense":
        return torch.ones(1, 1, len(queries.start), len(keys.start), dtype=torch.uint8, device="cpu")
    reach = _reach(grid, model_type, decay_factor, block_size)
    sink = model_type == "wan"
    levels = np.ones((len(queries.start), len(keys.start)), np.uint8)
    video = queries.start >= 0
    inside = np.flatnonzero(video & (queries.first == queries.last))
    levels[inside] = _kept_by_one_frame(queries.take(inside), keys, grid, reach, sink)
    straddling = np.flatnonzero(video & (queries.first < queries.last))
    levels[straddling] = _kept_by_several_frames(queries.take(straddling), keys, grid, reach, sink)
    levels[:, keys.start < 0] = 1
    if coarsen:
        levels = np.where(levels, levels, _pooled(queries, keys))
    return torch.tensor(levels, device="cpu")[None, None]


def frame_window(distance: int, frame_tokens: int, model_type: str, decay_factor: float, block_size: int) -> float:
    """How far apart two tokens may stand within their frames at this distance of frames; -1 when they never see.

    Args:
        distance: distance of the frames.
        frame_tokens: tokens a frame.
    """
    decayed = 2 ** frame_tokens.bit_length() / 2 ** distance.bit_length()
    if decayed < block_size and distance % int(block_size / decayed):
        return -1
    if distance == 0:
        return frame_tokens
    if distance == 1:
        return frame_tokens if model_type == "wan" else frame_tokens // 2
    return max(decayed * decay_factor, block_size)


def _reach(grid: Grid, model_type: str, decay_factor: float, block_size: int) -> np.ndarray:
    """The window of every distance of frames in whole tokens, int32 ``[frames]``; no frame is longer than itself."""
    frames, height, width = grid
    tokens = height * width
    windows = (frame_window(d, tokens, model_type, decay_factor, block_size) for d in range(frames))
    return np.array([int(min(window, tokens)) for window in windows], np.int32)


def _kept_by_one_frame(queries: Blocks, keys: Blocks, grid: Grid, reach: np.ndarray, sink: bool) -> np.ndarray:
    """What query blocks keep that lie inside one frame each; bool ``[q_blocks, k_blocks]``.

    The rows that see a column form a trapezoid along the columns of a key frame, so that the columns with at least so
    many rows are an interval, and key blocks count the parts of intervals that they hold.
    """
    frames, height, width = grid
    tokens = height * width
    low, high = (np.int32(edge - queries.first * tokens) for edge in (queries.start, queries.stop))
    between = reach[np.abs(np.arange(frames)[:, None] - queries.first)]
    if sink:
        between[0] = tokens
    touched, touched_length = _columns(low, high, between, np.int32(1), tokens)
    covered, covered_length = _columns(low, high, between, (high - low) // 3 + 1, tokens)
    gain = 5 * covered_length - 3 * touched_length
    gain_before = np.cumsum(gain, axis=0, dtype=np.int32) - gain

    # score[e]: 5 * well covered - 3 * touched columns in front of edge e. Its rise over a key block decides.
    edges = np.append(keys.start, keys.stop[-1]).clip(0)
    frame = np.minimum(edges // tokens, frames - 1)
    column = np.int32(edges - frame * tokens)[:, None]
    score = np.empty((len(edges), len(low)), np.int32)
    bounds = np.searchsorted(frame, np.arange(frames + 1))
    for g in range(frames):
        part = slice(bounds[g], bounds[g + 1])
        score[part] = gain_before[g] + 5 * np.clip(column[part] - covered[g], 0, covered_length[g])
        score[part] -= 3 * np.clip(column[part] - touched[g], 0, touched_length[g])
    return (score[1:] > score[:-1]).T


def _columns(
    low: np.ndarray, high: np.ndarray, reach: np.ndarray, least: np.ndarray, tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the columns begin that at least ``least`` of the rows ``low .. high - 1`` reach, and how many there are.

    ``least`` is at most the number of rows.
    """
    begin = (low - reach + (least - 1)).clip(0, tokens)
    end = (high + reach - (least - 1)).clip(0, tokens)
    return begin, np.where(2 * reach + 1 >= least, end - begin, 0)


def _kept_by_several_frames(queries: Blocks, keys: Blocks, grid: Grid, reach: np.ndarray, sink: bool) -> np.ndarray:
    """What query blocks keep that lie in more than one frame each, column by column; bool ``[q_blocks, k_blocks]``."""
    frames, height, width = grid
    tokens = height * width
    small = np.int16 if tokens < _SMALL_FRAME else np.int32
    # One line for every signed distance of frames: those that a frame needs lie together.
    offset = reach[np.abs(np.arange(1 - frames, frames))].astype(small)[:, None]
    column = np.arange(tokens, dtype=small)
    left, right = column - offset, column + offset + small(1)
    with_video = keys.stop > 0
    first_column = keys.start[with_video].clip(0)
    kept = np.zeros((len(queries.start), len(keys.start)), bool)
    for i, (start, stop, first, last) in enumerate(zip(*queries, strict=True)):
        rows = np.zeros((frames, tokens), small)
        for f in range(first, last + 1):
            low, high = small(max(start - f * tokens, 0)), small(min(stop - f * tokens, tokens))
            window = slice(frames - 1 - f, 2 * frames - 1 - f)
            seen = np.minimum(right[window], high) - np.maximum(left[window], low)
            rows += np.maximum(seen, 0, out=seen)
        if sink:
            rows[0] = stop - start
        # At least as many rows as are more than a third.
        score = small(5) * (rows >= small((stop - start) // 3 + 1)) - small(3) * (rows > 0)
        kept[i, with_video] = np.add.reduceat(score.ravel(), first_column, dtype=small) > 0
    return kept


def _pooled(queries: Blocks, keys: Blocks) -> np.ndarray:
    """The level of every pair of blocks that the mask would skip, by their distance in frames."""
    first, last = queries.first[:, None], queries.last[:, None]
    levels = np.full((len(queries.start), len(keys.start)), 2, np.uint8)
    for distance in (4, 8):
        levels <<= ((keys.first >= last + distance) | (keys.last <= first - distance)).view(np.uint8)
    return levels
