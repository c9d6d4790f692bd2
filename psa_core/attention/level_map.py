"""Level maps as calls hand them on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..ops.block_list.build import BlockList, build_block_list
from ..ops.reorder import Orders
from ..ops.reorder.by_content import Centroids
from .chunks import Chunk
from .recipes import Choice


@dataclass
class WorkedOut:
    """What the first call over a map has made of it, small things that later calls need not make again.

    Attributes:
        shares: of its levels.
        order: of its query blocks, as in :class:`psa_core.ops.block_list.build.BlockList`.
    """

    shares: torch.Tensor | None = None
    order: torch.Tensor | None = None


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
        worked_out: what calls have made of it; None where that is not for later ones.
    """

    levels: torch.Tensor
    orders: Orders | None
    max_level: int
    pooled: torch.Tensor | None = None
    choice: Choice | None = None
    centroids: Centroids | None = None
    worked_out: WorkedOut | None = None

    def repeated(self, times: int) -> LevelMap:
        """The same map for so many batches that follow one another."""
        if times == 1:
            return self
        orders = None if self.orders is None else self.orders.repeated(times)
        pooled = None if self.pooled is None else self.pooled.repeat(times, 1)
        return self._replace(levels=self.levels.repeat(times, 1, 1, 1), orders=orders, pooled=pooled)

    def part(self, chunk: Chunk) -> LevelMap:
        """The map of some of the heads."""
        orders = None if self.orders is None else self.orders.of_heads(chunk.copy_of)
        pooled = None if self.pooled is None else chunk.of_keys(self.pooled).clone()
        return LevelMap(chunk.copy_of(self.levels), orders, self.max_level, pooled)

    def block_list(self, block_n: int, k_tokens: int) -> BlockList:
        """What kernels read of it; the order of its query blocks is that of an earlier call, if there was one."""
        known = self.worked_out or WorkedOut()
        rows = math.prod(self.levels.shape[:3])
        order = known.order if known.order is not None and len(known.order) == rows else None
        block_list = build_block_list(self.levels, self.max_level, block_n, k_tokens, "triton", order)
        known.order = block_list.order
        return block_list

    def shares(self, count: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Shares of its levels, counted by the first call that asks."""
        known = self.worked_out or WorkedOut()
        if known.shares is None:
            known.shares = count()
        return known.shares

    @property
    def nbytes(self) -> int:
        """What it keeps from other use."""
        return self.levels.nbytes + (0 if self.centroids is None or self.orders is None else self.orders.nbytes)
