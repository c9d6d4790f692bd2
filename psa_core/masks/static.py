"""The static map that a radial mask's settings describe: its decay, its scenes, or both."""

from __future__ import annotations

import math

import torch

from ..ops.levels.rules import compose
from ..settings.radial import RadialMask
from ..settings.sizes import Grid
from .blocks import blocks_of, hold_references
from .radial import radial_levels
from .scene import scene_levels


def static_levels(
    mask: RadialMask, grid: Grid, text_length: int, block_m: int, block_n: int, behind: int = 0
) -> torch.Tensor:
    """The level map of a mask over tokens in raster order, text first.

    Args:
        grid: (frames, height, width) in tokens.
        text_length, behind: tokens in front of the video and behind it; a mask keeps all that has to do with them.
        block_m, block_n: tokens a query block and a key block.

    Returns:
        uint8 ``[1, 1, q_blocks, k_blocks]`` on the CPU, in which every row keeps at least one block.

    Raises:
        ConfigError: the scenes do not fit the number of frames.
    """
    model_type = mask.model_type
    if model_type == "auto":
        model_type = "cogvideox" if text_length else "wan"
    levels = radial_levels(
        grid,
        block_m=block_m,
        block_n=block_n,
        model_type=model_type,
        decay_factor=mask.decay_factor,
        text_length=text_length,
        block_size=mask.block_size,
        sparsity_type=mask.sparsity_type,
        coarsen=mask.mode == "coarsen",
    )
    levels = _keep_references(levels, mask, grid, text_length, block_m, block_n)
    if mask.scene_boundaries:
        scenes = scene_levels(
            grid,
            mask.scene_boundaries,
            mask.scene_adjacency,
            block_m=block_m,
            block_n=block_n,
            text_length=text_length,
            frames_per_token=mask.frames_per_token,
            reference_frames=mask.reference_frames,
        )
        levels = compose(levels, scenes, "intersect")
    levels = _keep_own_block(levels, block_m, block_n)
    return _keep_behind(levels, text_length + math.prod(grid), block_m, block_n, behind)


def _keep_references(
    levels: torch.Tensor, mask: RadialMask, grid: Grid, text_length: int, block_m: int, block_n: int
) -> torch.Tensor:
    """Level 1 where a block holds a reference frame, which is at no distance from the clip's frames."""
    rows, columns = (
        torch.from_numpy(hold_references(blocks_of(grid, size, text_length), grid[0], mask.reference_frames))
        for size in (block_m, block_n)
    )
    return levels.masked_fill(rows[:, None] | columns, 1)


def _keep_own_block(levels: torch.Tensor, block_m: int, block_n: int) -> torch.Tensor:
    """Keep the key block of a query block's first token where a row, as in frames of few tokens, keeps nothing."""
    own = (torch.arange(levels.shape[2], device=levels.device) * block_m // block_n)[None, None, :, None]
    empty = (levels == 0).all(-1, keepdim=True)
    return levels.scatter(-1, own, levels.gather(-1, own) | empty)


def _keep_behind(levels: torch.Tensor, tokens: int, block_m: int, block_n: int, behind: int) -> torch.Tensor:
    """The map of so many tokens with those behind them, of whose blocks it keeps every pair."""
    if not behind:
        return levels
    kept = levels.new_ones(1, 1, math.ceil((tokens + behind) / block_m), math.ceil((tokens + behind) / block_n))
    rows, columns = tokens // block_m, tokens // block_n
    kept[..., :rows, :columns] = levels[..., :rows, :columns]
    return kept
