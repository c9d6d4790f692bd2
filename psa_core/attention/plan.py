"""The level map of one call: chosen by content, given by a static mask, or both."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch

from ..masks.static import static_levels
from ..ops.block_list.build import BlockList, build_block_list
from ..ops.causal import Causal, causal_levels
from ..ops.device_cache import device_cache
from ..ops.grouped import for_query_heads
from ..ops.importance.by_head import importance_by_head
from ..ops.importance.estimators import ESTIMATORS
from ..ops.levels.bounds import level_bounds
from ..ops.levels.rules import full_resolution_sinks, level_shares, levels_from_importance
from ..ops.reorder import Orders
from ..ops.similarity.cap import similarity_cap
from ..settings.config import PSAConfig
from ..settings.radial import RadialMask
from ..settings.sinks import Sinks, around
from ..settings.sizes import Grid
from .recipes import HeadRecipes

# The coarsest level of a mask that decides alone.
MASK_MAX_LEVEL = 8


def plan_levels(
    q: torch.Tensor,
    k: torch.Tensor,
    config: PSAConfig,
    sinks: Sinks = (),
    static: torch.Tensor | None = None,
    backend: str = "torch",
    orders: Orders | None = None,
    static_rule: str = "intersect",
    recipes: HeadRecipes | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """The level map of one call that chooses by content.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, Hk, Lk, D]``; in the order in which blocks are cut, or with orders.
        config, sinks: as in :func:`psa_core.pyramid_sparse_attention`.
        static: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``, combined with what is chosen.
        backend: ``"triton"`` or ``"torch"``.
        orders: with ``"triton"``, those in which blocks are cut from q and k.
        static_rule: how they combine (:func:`psa_core.ops.levels.rules.compose`).
        recipes: estimator and quotas of each head, where calibration decides.
        causal: as in :func:`psa_core.ops.levels.rules.levels_from_importance`.

    Returns:
        uint8 ``[B, H, q_blocks, k_blocks]`` in which every row keeps at least one block.
    """
    cap = None
    if config.use_sim_mask:
        cap = for_query_heads(similarity_cap(k, config, backend, orders), q.shape[1])
    sizes = config.block_m, config.block_n
    if recipes is not None:
        of_head = recipes.estimators, recipes.estimator_of_head
        importance = importance_by_head(q, k, *sizes, *of_head, backend, orders, causal=causal)
    else:
        only = _only_level(config, math.ceil(k.shape[2] / config.block_n))
        if only and static is None:
            return _one_level(only, q, k, config, cap, sinks, causal)
        importance = ESTIMATORS[config.importance](q, k, *sizes, backend, orders, causal=causal)
    quotas = None if recipes is None else recipes.quotas
    return levels_from_importance(importance, config, cap, static, static_rule, sinks, backend, quotas, causal=causal)


def mask_levels(config: PSAConfig, grid: Grid, sinks: Sinks, tokens: int, device: torch.device) -> torch.Tensor:
    """The map of the config's mask, uint8 ``[1, 1, q_blocks, k_blocks]``, built once for each shape."""
    return _mask_levels(_mask_shape(config, grid, sinks, tokens), device)


def mask_block_list(
    config: PSAConfig, grid: Grid, sinks: Sinks, tokens: int, max_level: int, device: torch.device
) -> BlockList:
    """The block list of a mask that decides alone, one for all batches and heads, built once for each shape."""
    return _mask_block_list(_mask_shape(config, grid, sinks, tokens), max_level, device)


def mask_level_shares(config: PSAConfig, grid: Grid, sinks: Sinks, tokens: int, device: torch.device) -> torch.Tensor:
    """:func:`psa_core.ops.levels.rules.level_shares` of a mask that decides alone, counted once for each shape."""
    return _mask_level_shares(_mask_shape(config, grid, sinks, tokens), coarsest_level(config), device)


def coarsest_level(config: PSAConfig, any_level: bool = False) -> int:
    """The coarsest level that a call's map may hold; ``any_level``: with a map from outside, which may hold any."""
    if any_level:
        return config.block_n
    if config.radial is not None and config.radial.decides_alone:
        return MASK_MAX_LEVEL if config.radial.mode == "coarsen" else 1
    return max(config.levels)


def _only_level(config: PSAConfig, k_blocks: int) -> int:
    """The level of all blocks when the settings leave no choice; 0 when they do, or when all are skipped."""
    levels, _, _ = level_bounds(config, k_blocks)
    full_resolution = config.mask_mode == "thresholdbound" and config.min_full_ratio > 0
    return levels[0] if len(levels) == 1 and (levels[0] == 1 or not full_resolution) else 0


def _one_level(
    level: int,
    q: torch.Tensor,
    k: torch.Tensor,
    config: PSAConfig,
    cap: torch.Tensor | None,
    sinks: Sinks,
    causal: Causal | None,
) -> torch.Tensor:
    shape = *q.shape[:2], math.ceil(q.shape[2] / config.block_m), math.ceil(k.shape[2] / config.block_n)
    levels = torch.full(shape, level, dtype=torch.uint8, device=q.device)
    if cap is not None:
        levels = torch.minimum(levels, cap)
    offset = 0 if causal is None else causal.offset
    levels = full_resolution_sinks(levels, sinks, config.block_m, config.block_n, offset=offset)
    return levels if causal is None else causal_levels(levels, causal)


class _MaskShape(NamedTuple):
    """All that the map of a mask depends on; ``around``: how many tokens lie in front of the video and behind it."""

    radial: RadialMask
    grid: Grid
    around: tuple[int, int]
    block_m: int
    block_n: int

    @property
    def tokens(self) -> int:
        return sum(self.around) + math.prod(self.grid)


def _mask_shape(config: PSAConfig, grid: Grid, sinks: Sinks, tokens: int) -> _MaskShape:
    assert config.radial is not None
    radial = _what_shapes(config.radial)
    return _MaskShape(radial, (grid[0], grid[1], grid[2]), around(grid, sinks, tokens), config.block_m, config.block_n)


@lru_cache(maxsize=64)
def _what_shapes(radial: RadialMask) -> RadialMask:
    """A mask without the settings that its map does not depend on."""
    mode = "coarsen" if radial.mode == "coarsen" else "radial only"
    return radial.replace(mode=mode, dense_layers=0, dense_timesteps=0, last_dense_timesteps=0)


# A sampling run meets a handful of shapes (context windows, prompts of several lengths); 20 MB an entry at 130k tokens
# and key blocks of 32.
@device_cache(maxsize=8)
def _mask_levels(shape: _MaskShape, device: torch.device) -> torch.Tensor:
    before, behind = shape.around
    return static_levels(shape.radial, shape.grid, before, shape.block_m, shape.block_n, behind).to(device)


@device_cache(maxsize=8)
def _mask_block_list(shape: _MaskShape, max_level: int, device: torch.device) -> BlockList:
    return build_block_list(_mask_levels(shape, device), max_level, shape.block_n, shape.tokens, "triton")


@device_cache(maxsize=8)
def _mask_level_shares(shape: _MaskShape, max_level: int, device: torch.device) -> torch.Tensor:
    return level_shares(_mask_levels(shape, device), max_level)
