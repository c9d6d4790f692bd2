"""The steps of one call, one after another, from arguments that were checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..ops.backends import choose_backend
from ..ops.block_list.build import BlockList
from ..ops.precision import PRECISIONS, precision_that_runs
from ..ops.reorder import Orders
from ..ops.reorder.by_content import Centroids
from ..ops.reorder.orders import queries_of
from ..settings.config import PSAConfig
from ..settings.sinks import Sinks
from ..settings.sizes import Grid
from .attend import attend
from .choose import choose_recipes
from .plan import (
    coarsest_level,
    mask_block_list,
    mask_level_shares,
    mask_levels,
    plan_levels,
)
from .recipes import Choice
from .trial import Trial


class AttentionInfo(NamedTuple):
    """What one call did.

    Attributes:
        levels: the level map that ran, uint8 ``[B, H, q_blocks, k_blocks]``, over the reordered sequence.
        level_shares: share of block pairs at level 1, 2, 4 ..., float32, one a level that the call may use; the rest
            is skipped. On the device, so that asking costs no wait.
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


class LevelMap(NamedTuple):
    """What a call's map is made of, which a later call on nearly the same tensors may take over.

    Attributes:
        levels: uint8 ``[B, H, q_blocks, k_blocks]``, over the tokens in each head's order.
        orders: these orders; None for tokens as they lie.
        max_level: the coarsest level that there may be.
        pooled: uint8 ``[B, H]`` of keys, zero for heads that have no block at a coarser level than 1; None where that
            is not known.
        choice: the recipe of each head, where calibration decides.
        centroids: of the clusters behind orders by content, from which those of a later map may start; None where there
            are no such orders.
    """

    levels: torch.Tensor
    orders: Orders | None
    max_level: int
    pooled: torch.Tensor | None = None
    choice: Choice | None = None
    centroids: Centroids | None = None

    def repeated(self, times: int) -> LevelMap:
        """The same map for so many batches that follow one another."""
        if times == 1:
            return self
        orders = None if self.orders is None else self.orders.repeated(times)
        pooled = None if self.pooled is None else self.pooled.repeat(times, 1)
        return self._replace(levels=self.levels.repeat(times, 1, 1, 1), orders=orders, pooled=pooled)

    @property
    def nbytes(self) -> int:
        """What it keeps from other use."""
        return self.levels.nbytes + (0 if self.centroids is None or self.orders is None else self.orders.nbytes)


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
) -> Attended:
    """The steps of :func:`pyramid_sparse_attention`, one after another, from arguments that were checked.

    Args:
        choice: the recipe of each head, where calibration decides; None for measuring which.
        level_map: of an earlier call, in place of choosing levels anew.
        exact_heads: of an earlier call, in place of measuring which heads ``precision: auto`` leaves unquantised.
    """
    backend = choose_backend(backend, q, k, v)
    trial = trial_of(q, k, v, config, grid, sinks, static_levels, backend)
    if config.radial is not None and config.radial.decides_alone and grid is not None:
        assert trial.static is not None
        return _attend_masked(trial, trial.static, grid, exact_heads)
    if level_map is None:
        level_map = make_level_map(trial, choice, static_levels is not None)
    levels, orders, max_level, pooled, choice, _ = level_map
    # Kernels read tokens in their order instead.
    taken = queries_of(orders) if backend == "torch" else None
    if taken is not None and orders is not None:
        (q, k, v), orders = orders.take_call(q, k, v), None
    tensors = q, k, v, levels
    attended = _attend(
        *tensors, max_level, config, backend, orders, exact_heads=exact_heads, measured=trial.blocks, pooled=pooled
    )
    out = attended.out if taken is None else taken.restore(attended.out)

    def info() -> AttentionInfo:
        return AttentionInfo(levels, attended.level_shares(), backend, choice, attended.precision)

    return Attended(_heads_inside(out), info, level_map, attended.exact_heads)


def make_level_map(trial: Trial, choice: Choice | None = None, any_level: bool = False) -> LevelMap:
    """The map that a call chooses by content.

    Args:
        trial: of the call.
        choice: the recipe of each head, where calibration decides; None for measuring which.
        any_level: as of :func:`psa_core.attention.plan.coarsest_level`.
    """
    q, k, config = trial.q, trial.k, trial.config
    recipes = None
    if config.mask_mode == "calibrated":
        choice = choose_recipes(trial) if choice is None else choice.at_density(config.target_density)
        recipes = trial.head_recipes(choice.recipes, choice.of_head)
        orders = recipes.orders
    else:
        orders = trial.fixed_order
    op_orders = orders
    if trial.backend == "torch" and orders is not None:
        (q, k), op_orders = orders.take_call(q, k), None
    rules = trial.static, trial.backend, op_orders, trial.static_rule, recipes
    levels = plan_levels(q, k, config, trial.sinks, *rules)
    by_content = orders is not None and orders.of_queries is not None
    centroids = trial.content.centroids if by_content else None
    max_level = coarsest_level(config, any_level)
    pooled = None
    if max_level > 1:
        # Most heads that choose for themselves take level 1 alone, and need no pooled rows.
        pooled = (levels.unflatten(1, (k.shape[1], -1)).flatten(2).amax(2) > 1).to(torch.uint8)
    return LevelMap(levels, orders, max_level, pooled, choice, centroids)


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
) -> Trial:
    """The trial of a call's level maps; arguments as of :func:`sparse_attention` and :class:`.trial.Trial`."""
    static, rule = static_levels, "intersect"
    if config.radial is not None and grid is not None:
        static, rule = mask_levels(config, grid, sinks, q.shape[2], q.device), config.radial.mode
    return Trial(q, k, v, config, grid, sinks, static, rule, backend, centroids)


def _attend_masked(trial: Trial, mask: torch.Tensor, grid: Grid, exact_heads: torch.Tensor | None) -> Attended:
    """Attention over the config's mask alone."""
    q, k, v, config, backend = trial.q, trial.k, trial.v, trial.config, trial.backend
    max_level = coarsest_level(config)
    of_shape = grid, trial.sinks, q.shape[2]
    # Plain torch reads the map itself.
    block_list = mask_block_list(config, *of_shape, max_level, q.device) if backend == "triton" else None
    levels = mask.expand(*q.shape[:2], -1, -1)
    tensors = q, k, v, levels
    attended = _attend(*tensors, max_level, config, backend, None, block_list, exact_heads, trial.blocks)

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
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    max_level: int,
    config: PSAConfig,
    backend: str,
    orders: Orders | None,
    block_list: BlockList | None = None,
    exact_heads: torch.Tensor | None = None,
    measured: tuple[int, ...] = (),
    pooled: torch.Tensor | None = None,
) -> _Output:
    """Attention over a level map in the precision that the config asks for, or the nearest that there is."""
    precision = PRECISIONS[0]
    if backend == "triton":
        precision = precision_that_runs(config.precision, q.device, q.dtype, q.shape[-1])
    sizes = config.block_m, config.block_n, max_level
    if precision == PRECISIONS[0]:
        out, shares = attend(q, k, v, levels, *sizes, backend, orders, block_list=block_list, pooled=pooled)
        return _Output(out, shares, None, precision)
    from .quantised import attend_quantised

    measured = measured if config.precision == "auto" else ()
    return _Output(
        *attend_quantised(q, k, v, levels, *sizes, precision, orders, block_list, exact_heads, measured, pooled),
        precision,
    )


def _heads_inside(out: torch.Tensor) -> torch.Tensor:
    """``[B, H, L, D]`` with heads inside tokens in memory, as models go on with them."""
    return out.transpose(1, 2).contiguous().transpose(1, 2)
