"""The radial mask token by token. The oracle of ``psa_core.masks.radial``, for small sizes."""

from __future__ import annotations

import torch

from psa_core.settings.sizes import Grid


def radial_levels_naive(
    grid: Grid,
    block_m: int,
    block_n: int,
    model_type: str,
    decay_factor: float = 1.0,
    text_length: int = 0,
    block_size: int = 128,
    coarsen: bool = False,
) -> torch.Tensor:
    """The level map from the whole token mask; arguments and result as in ``psa_core.masks.radial.radial_levels``."""
    frames, height, width = grid
    s = height * width
    tokens = text_length + frames * s
    mask = torch.ones(tokens, tokens, dtype=torch.bool)
    position = torch.arange(s)
    apart = (position[:, None] - position).abs()
    for i in range(frames):
        for j in range(frames):
            d = abs(i - j)
            decayed = 2 ** s.bit_length() / 2 ** d.bit_length()
            if d == 0 or (j == 0 and model_type == "wan"):
                pair = torch.ones(s, s, dtype=torch.bool)
            elif decayed < block_size and d % int(block_size / decayed) != 0:
                pair = torch.zeros(s, s, dtype=torch.bool)
            elif d == 1:
                pair = apart <= (s if model_type == "wan" else s // 2)
            else:
                pair = apart <= max(decayed * decay_factor, block_size)
            rows, columns = text_length + i * s, text_length + j * s
            mask[rows : rows + s, columns : columns + s] = pair
    levels = torch.ones(-(-tokens // block_m), -(-tokens // block_n), dtype=torch.uint8)
    for i, rows in enumerate(mask.split(block_m, 0)):
        for j, covered in enumerate(rows.sum(0).split(block_n)):
            if i * block_m < text_length or j * block_n < text_length:
                continue
            touched = int((covered > 0).sum())
            well_covered = int((3 * covered > len(rows)).sum())
            kept = 5 * well_covered > 3 * touched  # Whole numbers: 0.6 is no exact float.
            if not kept:
                levels[i, j] = _pooled(grid, i, j, block_m, block_n, text_length) if coarsen else 0
    return levels[None, None]


def _pooled(grid: Grid, i: int, j: int, block_m: int, block_n: int, text_length: int) -> int:
    """The level of a pair of blocks without text that the mask would skip."""
    frames, height, width = grid
    frame = torch.arange(frames).repeat_interleave(height * width)
    queries, keys = frame[i * block_m - text_length :][:block_m], frame[j * block_n - text_length :][:block_n]
    d = int((queries[:, None] - keys).abs().min())
    return int(min(max(2 ** (d.bit_length() - 1), 2), 8))
