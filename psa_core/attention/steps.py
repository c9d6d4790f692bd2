"""The steps of one call, one after another, from arguments that were checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ..ops.backends import choose_backend
from ..ops.block_list.build import BlockList
from ..ops.causal import Causal, hidden_keys
from ..ops.grouped import for_query_heads
from ..ops.levels.rules import level_shares
from ..ops.precision import PRECISIONS, precision_that_runs
from ..ops.reorder import Orders
from ..ops.reorder.by_content import Centroids
from ..ops.reorder.orders import in_order, queries_of
from ..settings.config import PSAConfig
from ..settings.orders import RASTER
from ..settings.sinks import Sinks
from ..settings.sizes import Grid
from .attend import attend
from .choose import choose_recipes
from .chunks import join
from .level_map import LevelMap, WorkedOut
from .plan import (
    coarsest_level,
    mask_block_list,
    mask_level_shares,
    mask_levels,
    plan_levels,
)
from .recipes import Choice, HeadRecipes
from .trial import Trial


class AttentionInfo(NamedTuple):
    """What one call did.

    Attributes:
        levels: the level map that ran, uint8 ``[B, H, q_blocks, k_blocks]``, over the reordered sequence.
        level_shares: share of block pairs at level 1, 2, 4 ..., float32, one a level that the call may use; the rest
            is skipped. Of a causal call, of the block pairs that the mask leaves. On the device, so that asking costs
            no wait.
        backend: ``"triton"`` or ``"torch"``.
        choice: the recipe of each head, where calibration decided; None elsewhere, and in compiled graphs.
        precision: that level 1 was computed in; ``"bf16"`` for that of the tensors.
    """

    levels: torch.Tensor
    level_shares: torch.Tensor
    backend: str
    choice: Choice | None = None
    precision: str = PRECISIONS[0]

    @property
    def density(self) -> torch.Tensor:
        """Share of dense attention's FLOPs; a 0-dim tensor on the device."""
        shares = self.level_shares
        return (shares * 0.5 ** torch.arange(shares.shape[0], device=shares.device)).sum()


class Attended(NamedTuple):
    """What came of one call.

    Attributes:
        out: ``[B, H, Lq, D]``.
        info: tells about the call when asked.
        level_map: its map; None where a mask decides alone, whose map is kept anyway.
        exact_heads: uint8 ``[B, H]``, the heads that ``precision: auto`` left unquantised; None where it had no say.
    """

    out: torch.Tensor
    info: Callable[[], AttentionInfo]
    level_map: LevelMap | None
    exact_heads: torch.Tensor | None = None


def sparse_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig,
    grid: Grid | None,
    sinks: Sinks,
    static_levels: torch.Tensor | None,
    backend: str,
    choice: Choice | None = None,
    level_map: LevelMap | None = None,
    exact_heads: torch.Tensor | None = None,
    causal: bool = False,
) -> Attended:
    """The steps of :func:`pyramid_sparse_attention`, one after another, from arguments that were checked.

    Args:
        choice: the recipe of each head, where calibration decides; None for measuring which.
        level_map: of an earlier call, in place of choosing levels anew.
        exact_heads: of an earlier call, in place of measuring which heads ``precision: auto`` leaves unquantised.
    """
    backend = choose_backend(backend, q, k, v)
    trial = trial_of(q, k, v, config, grid, sinks, static_levels, backend, causal=causal)
    if config.radial is not None and config.radial.decides_alone and grid is not None:
        assert trial.static is not None
        return _attend_masked(trial, trial.static, grid, exact_heads)
    if level_map is None:
        level_map = make_level_map(trial, choice, static_levels is not None)
    attended = _attend(trial, level_map, exact_heads=exact_heads)

    def info() -> AttentionInfo:
        shares = level_map.shares(attended.level_shares)
        if trial.causal is not None:
            shares = shares / trial.causal.visible_share
        return AttentionInfo(level_map.levels, shares, backend, level_map.choice, attended.precision)

    return Attended(_heads_inside(attended.out), info, level_map, attended.exact_heads)


def make_level_map(trial: Trial, choice: Choice | None = None, any_level: bool = False) -> LevelMap:
    """The map that a call chooses by content.

    Args:
        trial: of the call.
        choice: the recipe of each head, where calibration decides; None for measuring which.
        any_level: as in :func:`psa_core.attention.plan.coarsest_level`.
    """
    config, recipes = trial.config, None
    if config.mask_mode == "calibrated":
        choice = choose_recipes(trial) if choice is None else choice.at_density(config.target_density)
        recipes = trial.head_recipes(choice.recipes, choice.of_head)
        orders = recipes.orders
    else:
        orders = trial.fixed_order
    parts = ((part.chunk, _levels(part, orders, recipes)) for part in trial.parts)
    levels = join(parts, *trial.q.shape[:2])
    by_content = orders is not None and orders.of_queries is not None
    centroids = trial.content.centroids if by_content else None
    max_level = coarsest_level(config, any_level)
    pooled = None
    if max_level > 1:
        # Most heads that choose for themselves take level 1 alone, and need no pooled rows.
        pooled = (levels.unflatten(1, (trial.k.shape[1], -1)).flatten(2).amax(2) > 1).to(torch.uint8)
    return LevelMap(levels, orders, max_level, pooled, choice, centroids, WorkedOut())


def _levels(part: Trial, orders: Orders | None, recipes: HeadRecipes | None) -> torch.Tensor:
    """The level map of some heads, from orders and recipes of all."""
    orders = None if orders is None else orders.of_heads(part.chunk.copy_of)
    recipes = None if recipes is None else recipes.part(part.chunk)
    orders, (q, k) = in_order(orders, part.backend, part.q, part.k)
    rules = part.static, part.backend, orders, part.static_rule, recipes, part.causal
    return plan_levels(q, k, part.config, part.sinks, *rules)


def trial_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig,
    grid: Grid | None,
    sinks: Sinks,
    static_levels: torch.Tensor | None,
    backend: str,
    centroids: Centroids | None = None,
    causal: bool = False,
) -> Trial:
    """The trial of a call's level maps; arguments as in :func:`sparse_attention` and :class:`.trial.Trial`."""
    mask = Causal(q.shape[2], k.shape[2], config.block_m, config.block_n) if causal else None
    if mask is None and (config.mask_mode == "calibrated" or config.order != RASTER):
        # Heads that share keys may take them in different orders.
        k, v = (for_query_heads(x, q.shape[1]) for x in (k, v))
    static, rule = static_levels, "intersect"
    if config.radial is not None and grid is not None:
        static, rule = mask_levels(config, grid, sinks, q.shape[2], q.device), config.radial.mode
    return Trial(q, k, v, config, grid, sinks, static, rule, backend, centroids, mask)


def _attend_masked(trial: Trial, mask: torch.Tensor, grid: Grid, exact_heads: torch.Tensor | None) -> Attended:
    """Attention over the config's mask alone."""
    q, config, backend = trial.q, trial.config, trial.backend
    max_level = coarsest_level(config)
    of_shape = grid, trial.sinks, q.shape[2]
    # Plain torch reads the map itself.
    block_list = mask_block_list(config, *of_shape, max_level, q.device) if backend == "triton" else None
    levels = mask.expand(*q.shape[:2], -1, -1)
    attended = _attend(trial, LevelMap(levels, None, max_level), block_list, exact_heads)

    def info() -> AttentionInfo:
        shares = mask_level_shares(config, *of_shape, q.device)
        return AttentionInfo(levels, shares, backend, precision=attended.precision)

    return Attended(_heads_inside(attended.out), info, None, attended.exact_heads)


class _Output(NamedTuple):
    out: torch.Tensor
    level_shares: Callable[[], torch.Tensor]
    exact_heads: torch.Tensor | None
    precision: str


def _attend(
    trial: Trial, level_map: LevelMap, block_list: BlockList | None = None, exact_heads: torch.Tensor | None = None
) -> _Output:
    """Attention over a level map, of as many heads at a time as keep to ``max_extra_memory``."""
    if len(trial.parts) == 1:
        return _attend_at_once(trial, level_map, block_list, exact_heads)
    batch, heads, length, d = trial.q.shape
    out = trial.q.new_empty((batch, length, heads, d)).transpose(1, 2)
    precision, exact = PRECISIONS[0], []
    for part in trial.parts:
        chunk = part.chunk
        its_exact_heads = None if exact_heads is None else chunk.copy_of(exact_heads)
        done = _attend_at_once(part, level_map.part(chunk), block_list, its_exact_heads)
        chunk.of(out).copy_(done.out)
        precision = done.precision
        if done.exact_heads is not None:
            exact.append((chunk, done.exact_heads))
        # Before the next one is there.
        del done
    exact_heads = join(exact, batch, heads) if exact else None
    return _Output(out, partial(level_shares, level_map.levels, level_map.max_level), exact_heads, precision)


def _attend_at_once(
    trial: Trial, level_map: LevelMap, block_list: BlockList | None, exact_heads: torch.Tensor | None
) -> _Output:
    """Attention over a level map in the precision that the config asks for, or the nearest that there is."""
    config, backend, pooled = trial.config, trial.backend, level_map.pooled
    orders, (q, k, v) = in_order(level_map.orders, backend, trial.q, trial.k, trial.v)
    precision = PRECISIONS[0]
    if backend == "triton":
        precision = precision_that_runs(config.precision, q.device, q.dtype, q.shape[-1])
    if block_list is None and backend == "triton":
        block_list = level_map.block_list(config.block_n, k.shape[2])
    call = q, k, v, level_map.levels, config.block_m, config.block_n, level_map.max_level
    hidden = None if trial.causal is None else hidden_keys(trial.causal, q.device)
    if precision == PRECISIONS[0]:
        out, shares = attend(*call, backend, orders, None, block_list, pooled, hidden)
        # What was copied in order goes back to where it lies.
        copied = queries_of(level_map.orders) if orders is None else None
        return _Output(out if copied is None else copied.restore(out), shares, None, precision)
    from .quantised import attend_quantised

    measured = trial.blocks if config.precision == "auto" and exact_heads is None else ()
    quantised = attend_quantised(*call, precision, orders, block_list, exact_heads, measured, pooled, hidden)
    return _Output(*quantised, precision)


def _heads_inside(out: torch.Tensor) -> torch.Tensor:
    """``[B, H, L, D]`` with heads inside tokens in memory, as models go on with them."""
    return out.transpose(1, 2).contiguous().transpose(1, 2)
