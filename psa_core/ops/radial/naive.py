"""The radial mask token by token. The oracle of ``psa_core.masks.radial``, for small sizes."""

from __future__ import annotations

import torch

from ...reorder import Grid


def radial_levels_naive(
    grid: Grid,
    block_m: int,
    block_n: int,
    model_type: str,
    decay_factor: float = 1.0,
    text_length: int = 0,
    block_size: int = 128,
) -> torch.Tensor:
    """The level map from the whole token mask; arguments and result as of ``psa_core.masks.radial.radial_levels``."""
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
        for j, block in enumerate(rows.split(block_n, 1)):
            if i * block_m < text_length or j * block_n < text_length:
                continue
            covered = block.double().mean(0)
            touched = covered > 0
            levels[i, j] = bool((covered > 1 / 3).sum() > 0.6 * touched.sum())
    return levels[None, None]
