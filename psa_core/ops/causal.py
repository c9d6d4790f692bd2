"""The causal mask in blocks: query i of Lq sees the keys up to i + Lk - Lq, so that the last of both stand together.

A query block's *own* key blocks hold the positions of its queries. They are at level 1, and the attention kernel masks
their tokens. Those before them lie wholly in the past of every query and may be pooled; those behind are skipped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from .block_positions import block_positions
from .device_cache import device_cache


class Causal(NamedTuple):
    """The causal mask of one call.

    Attributes:
        q_tokens, k_tokens: Lq and Lk, of which the first is not the larger.
        block_m, block_n: tokens a query block and a key block.
    """

    q_tokens: int
    k_tokens: int
    block_m: int
    block_n: int

    @property
    def offset(self) -> int:
        """The position of the first query among the keys."""
        return self.k_tokens - self.q_tokens

    @property
    def q_blocks(self) -> int:
        return -(-self.q_tokens // self.block_m)

    def past(self, block: int) -> int:
        """How many key blocks lie before a query block's own ones."""
        return (block * self.block_m + self.offset) // self.block_n

    def visible(self, block: int) -> int:
        """How many key blocks a query block sees, its own ones among them."""
        last = min((block + 1) * self.block_m, self.q_tokens) - 1 + self.offset
        return last // self.block_n + 1

    @property
    def visible_share(self) -> float:
        """The share of block pairs that the mask leaves, of which densities are shares."""
        k_blocks = -(-self.k_tokens // self.block_n)
        return sum(visible_blocks(self)) / (self.q_blocks * k_blocks)


# Asked on every attention call.
@lru_cache(maxsize=64)
def visible_blocks(causal: Causal, blocks: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """How many key blocks each of some query blocks sees; of all of them for None."""
    return tuple(map(causal.visible, range(causal.q_blocks) if blocks is None else blocks))


@device_cache(maxsize=32)
def own_blocks(
    causal: Causal, blocks: tuple[int, ...] | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first of the own key blocks of some query blocks, and the first behind them, int32 ``[rows, 1]``.

    Args:
        blocks: which query blocks; None for all.
    """
    rows = range(causal.q_blocks) if blocks is None else blocks
    first, behind = ([[at(i)] for i in rows] for at in (causal.past, causal.visible))
    return (
        torch.tensor(first, dtype=torch.int32, device=device),
        torch.tensor(behind, dtype=torch.int32, device=device),
    )


def causal_levels(levels: torch.Tensor, causal: Causal, blocks: tuple[int, ...] | None = None) -> torch.Tensor:
    """A level map under the mask: own key blocks at level 1, those behind them skipped. No row is left empty.

    Args:
        levels: uint8 ``[..., q_blocks, k_blocks]``.
        blocks: which query blocks the rows are; None for all.
    """
    own, behind = own_blocks(causal, blocks, levels.device)
    j = torch.arange(levels.shape[-1], device=levels.device)
    return torch.where(j < own, levels, (j < behind).to(torch.uint8))


# 512 KB at 128k queries.
@device_cache(maxsize=8)
def hidden_keys(causal: Causal, device: torch.device) -> torch.Tensor:
    """How many keys at the end of its block's own ones each query does not see, int32 ``[Lq]``.

    Own key blocks are the last that are listed at level 1, so these keys are the last rows of that list.
    """
    query = torch.arange(causal.q_tokens)
    last = (query // causal.block_m + 1) * causal.block_m - 1
    last = last.clamp(max=causal.q_tokens - 1) + causal.offset
    end = ((last // causal.block_n + 1) * causal.block_n).clamp(max=causal.k_tokens)
    return (end - 1 - query - causal.offset).to(torch.int32).to(device)


@device_cache(maxsize=32)
def seen_runs(
    causal: Causal, q_run: int, k_run: int, blocks: tuple[int, ...] | None, device: torch.device
) -> torch.Tensor:
    """How many runs of keys each run of queries sees: those whose last key its last query sees. int32 ``[runs]``.

    Args:
        q_run, k_run: tokens of a run, which divide those of a block.
        blocks: the query blocks whose runs are meant; None for all.
    """
    q_tokens, k_tokens, block_m, _ = causal
    rows = tuple(range(causal.q_blocks)) if blocks is None else blocks
    starts = block_positions(rows, block_m, q_tokens, device, q_run)
    keys = (starts + q_run).clamp(max=q_tokens) + causal.offset
    # The last key makes a ragged run whole.
    return torch.where(keys == k_tokens, -(-k_tokens // k_run), keys // k_run).to(torch.int32)


def seen_samples(causal: Causal, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """How many of some keys each of some queries sees, int32 ``[queries]``.

    Args:
        queries, keys: their positions, int64, those of keys ascending.
    """
    return torch.searchsorted(keys, queries + causal.offset, right=True).to(torch.int32)
