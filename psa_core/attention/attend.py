"""Attention over a level map, by the kernels or in plain torch: the pyramid, the block list, and the rows they keep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..ops.attention.torch import pyramid_attention_torch
from ..ops.block_list.build import BlockList, build_block_list
from ..ops.levels.rules import level_shares
from ..ops.pyramid.rows import build_pyramid
from ..ops.reorder import Orders
from ..ops.reorder.orders import queries_of


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
    q_orders: Orders | None = None,
    block_list: BlockList | None = None,
    pooled: torch.Tensor | None = None,
    hidden: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """Attention over a level map.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, where Hk divides H.
        levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``.
        block_m, block_n: tokens a query block and a key block.
        max_level: the coarsest level that there may be.
        backend: ``"triton"`` or ``"torch"``.
        orders: as in the kernels; ``"torch"`` takes tokens in the order in which blocks are cut.
        q_orders: of q and the output, in place of those that come with ``orders``.
        block_list: of the map, where it has been made; only ``"triton"`` reads it.
        pooled: as in :class:`.level_map.LevelMap`.
        hidden: as in :func:`psa_core.ops.attention.torch.pyramid_attention_torch`.

    Returns:
        The output, ``[B, H, Lq, D]`` in the dtype of q, and a function that counts the shares of levels in the map.
    """
    pyramid = build_pyramid(k, v, max_level, backend, orders, pooled)
    if backend == "torch":
        out = pyramid_attention_torch(q, k, v, levels, pyramid, block_m, block_n, hidden)
        return out, partial(level_shares, levels, max_level)
    from ..ops.attention.dispatch import pyramid_attention

    if block_list is None:
        block_list = build_block_list(levels, max_level, block_n, k.shape[2], backend)
    q_orders = q_orders or queries_of(orders)
    out = pyramid_attention(q, k, v, block_list, pyramid, block_m, block_n, orders, q_orders, hidden)
    return out, block_list.level_shares
