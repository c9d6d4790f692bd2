"""The steps of one call, one after another, from arguments that were checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ..ops.attention.torch import pyramid_attention_torch
from ..ops.backends import choose_backend
from ..ops.block_list.build import BlockList, build_block_list
from ..ops.levels.rules import level_shares
from ..ops.pyramid.rows import build_pyramid
from ..ops.reorder import Orders, reorder_orders
from ..settings.config import PSAConfig
from ..settings.sizes import Grid
from .plan import (
    coarsest_level,
    mask_block_list,
    mask_level_shares,
    mask_levels,
    plan_levels,
)


class AttentionInfo(NamedTuple):
    """What one call did.

    Attributes:
        levels: the level map that ran, uint8 ``[B, H, q_blocks, k_blocks]``, over the reordered sequence.
        level_shares: share of block pairs at level 1, 2, 4 ..., float32, one a level that the call may use; the rest
            is skipped. On the device, so that asking costs no wait.
        backend: ``"triton"`` or ``"torch"``.
    """

    levels: torch.Tensor
    level_shares: torch.Tensor
    backend: str

    @property
    def density(self) -> torch.Tensor:
        """Share of dense attention's FLOPs; a 0-dim tensor on the device."""
        shares = self.level_shares
        return (shares * 0.5 ** torch.arange(shares.shape[0], device=shares.device)).sum()


def sparse_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    config: PSAConfig,
    grid: Grid | None,
    text_length: int,
    static_levels: torch.Tensor | None,
    backend: str,
) -> tuple[torch.Tensor, Callable[[], AttentionInfo]]:
    """The steps of :func:`pyramid_sparse_attention`, one after another, from arguments that were checked.

    Returns:
        The output, and what tells about the call when asked.
    """
    backend = choose_backend(backend, q, k, v)
    if config.radial is not None and grid is not None:
        out, levels, shares = _attend_masked(q, k, v, config, grid, text_length, backend)
        return _heads_inside(out), lambda: AttentionInfo(levels, shares(), backend)
    orders = None if grid is None else reorder_orders(config, grid, text_length, q.shape[0], q.shape[1], q.device)
    taken = None
    if backend == "torch" and orders is not None:
        # Kernels read tokens in their order instead.
        q, k, v = (orders.take(x) for x in (q, k, v))
        orders, taken = None, orders
    levels = plan_levels(q, k, config, text_length, static_levels, backend, orders)
    max_level = coarsest_level(config, any_level=static_levels is not None)
    out, shares = attend(q, k, v, levels, config.block_m, config.block_n, max_level, backend, orders)
    if taken is not None:
        out = taken.restore(out)
    return _heads_inside(out), lambda: AttentionInfo(levels, shares(), backend)


def _attend_masked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig, grid: Grid, text_length: int, backend: str
) -> tuple[torch.Tensor, torch.Tensor, Callable[[], torch.Tensor]]:
    """Output, level map, and what tells its shares, under the config's mask, whose windows run along raster order."""
    assert config.radial is not None
    mask = mask_levels(config, grid, text_length, q.device)
    sizes, max_level = (config.block_m, config.block_n), coarsest_level(config)
    if not config.radial.decides_alone:
        levels = plan_levels(q, k, config, text_length, mask, backend, static_rule=config.radial.mode)
        out, shares = attend(q, k, v, levels, *sizes, max_level, backend)
        return out, levels, shares
    # Plain torch reads the map itself.
    block_list = mask_block_list(config, grid, text_length, max_level, q.device) if backend == "triton" else None
    levels = mask.expand(*q.shape[:2], -1, -1)
    out, _ = attend(q, k, v, levels, *sizes, max_level, backend, block_list=block_list)
    return out, levels, partial(mask_level_shares, config, grid, text_length, q.device)


def _heads_inside(out: torch.Tensor) -> torch.Tensor:
    """``[B, H, L, D]`` with heads inside tokens in memory, as models go on with them."""
    return out.transpose(1, 2).contiguous().transpose(1, 2)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    block_m: int,
    block_n: int,
    max_level: int,
    backend: str,
    orders: Orders | None = None,
    block_list: BlockList | None = None,
) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """The output, and what tells the shares of levels in the map, whose block list may be there already."""
    pyramid = build_pyramid(k, v, max_level, backend, orders)
    if backend == "torch":
        out = pyramid_attention_torch(q, k, v, levels, pyramid, block_m, block_n)
        return out, partial(level_shares, levels, max_level)
    from ..ops.attention.dispatch import pyramid_attention

    if block_list is None:
        block_list = build_block_list(levels, max_level, block_n, k.shape[2], backend)
    return pyramid_attention(q, k, v, block_list, pyramid, block_m, block_n, orders), block_list.level_shares
