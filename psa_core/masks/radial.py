"""Radial mask: attention between frames narrows with their distance (RadialAttention, arXiv 2506.19852)."""

from __future__ import annotations

import numpy as np
import torch

from ..config import BLOCK_M, BLOCK_N
from ..errors import ConfigError
from ..reorder import Grid

MODEL_TYPES = ("wan", "cogvideox")
SPARSITY_TYPES = ("radial", "dense")
_LEAST_ROWS = 1 / 3
_LEAST_COLUMNS = 0.6


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
) -> torch.Tensor:
    """The level map of the radial mask over tokens in raster order, text first.

    Tokens of frames at distance d see each other within a window around the same position, which halves each time d
    doubles (:func:`frame_window`). A key block is kept where more than 0.6 of the columns that the mask touches are
    covered in more than a third of the query block's rows. Counts rows column by column for one query block at a time,
    so memory grows with the number of tokens, never with its square.

    Args:
        grid: (frames, height, width) in tokens.
        block_m, block_n: tokens a query block and a key block.
        model_type: ``"wan"`` (neighbouring frames in full, every frame sees the first) or ``"cogvideox"``.
        decay_factor: scales the window of distant frames.
        text_length: tokens in front of the video; they see and are seen by all.
        block_size: least window, and the threshold below which frame pairs are thinned out.
        sparsity_type: ``"dense"`` keeps everything.

    Returns:
        uint8 ``[1, 1, q_blocks, k_blocks]`` on the CPU: 1 kept, 0 skipped.

    Raises:
        ConfigError: an argument is not allowed; the message names it.
    """
    _check(grid, block_m, block_n, model_type, decay_factor, text_length, block_size, sparsity_type)
    frames, height, width = grid
    frame_tokens = height * width
    tokens = text_length + frames * frame_tokens
    first_column = np.arange(0, tokens, block_n)
    levels = np.ones((-(-tokens // block_m), len(first_column)), np.uint8)
    if sparsity_type == "radial":
        for i in range(len(levels)):
            rows = range(i * block_m, min((i + 1) * block_m, tokens))
            if rows.start < text_length:
                continue
            covered = _covered_rows(rows, frames, frame_tokens, text_length, model_type, decay_factor, block_size)
            touched = np.add.reduceat(covered > 0, first_column, dtype=np.int64)
            well_covered = np.add.reduceat(covered > _LEAST_ROWS * len(rows), first_column, dtype=np.int64)
            levels[i] = well_covered > _LEAST_COLUMNS * touched
        levels[:, : -(-text_length // block_n)] = 1
    return torch.from_numpy(levels)[None, None]


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


def _covered_rows(
    rows: range,
    frames: int,
    frame_tokens: int,
    text_length: int,
    model_type: str,
    decay_factor: float,
    block_size: int,
) -> np.ndarray:
    """For every key token, how many of the query tokens ``rows`` see it."""
    position = np.arange(frame_tokens)
    covered = np.zeros((frames, frame_tokens))
    start, stop = rows.start - text_length, rows.stop - text_length
    for frame in range(start // frame_tokens, (stop - 1) // frame_tokens + 1):
        low = max(start - frame * frame_tokens, 0)
        high = min(stop - frame * frame_tokens, frame_tokens)
        window = np.array(
            [
                frame_window(abs(frame - other), frame_tokens, model_type, decay_factor, block_size)
                for other in range(frames)
            ]
        )
        if model_type == "wan":
            window[0] = frame_tokens
        reach = np.floor(window)[:, None]
        seen = np.minimum(high, position + reach + 1) - np.maximum(low, position - reach)
        covered += np.where(reach < 0, 0, seen.clip(0))
    return np.concatenate([np.full(text_length, len(rows)), covered.ravel()])


def _check(
    grid: Grid,
    block_m: int,
    block_n: int,
    model_type: str,
    decay_factor: float,
    text_length: int,
    block_size: int,
    sparsity_type: str,
) -> None:
    if len(grid) != 3 or min(grid) < 1:
        raise ConfigError("grid", grid, "must be three whole numbers, 1 or more: frames, height, width")
    choices = {
        "block_m": (block_m, BLOCK_M),
        "block_n": (block_n, BLOCK_N),
        "model_type": (model_type, MODEL_TYPES),
        "sparsity_type": (sparsity_type, SPARSITY_TYPES),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise ConfigError(key, value, "must be one of " + ", ".join(map(str, allowed)))
    if not decay_factor > 0:
        raise ConfigError("decay_factor", decay_factor, "must be above 0")
    for key, number, least in (("text_length", text_length, 0), ("block_size", block_size, 1)):
        if number < least:
            raise ConfigError(key, number, f"must be {least} or more")
