"""Block list: the form of a level map that kernels read."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..constant import constant
from .packing import N_SIZES, TOKEN_BITS


class BlockList(NamedTuple):
    """Per query block, the key blocks it keeps, level by level.

    Attributes:
        blocks: int32 ``[B, H, q_blocks, k_blocks]``: the key blocks of level 1, then those of level 2, 4 ... each in
            ascending order; entries after the kept ones mean nothing.
        spans: int32 ``[B, H, q_blocks, n_levels]``, each ``rows << TOKEN_BITS | tokens``: how many pyramid rows the
            blocks of level ``2 ** i`` have, and for how many tokens the very last of these rows stands; 0 where there
            is no block. Every row before the last stands for ``2 ** i`` tokens, and every block but the last has
            ``block_n >> i`` rows, because only the last key block may be ragged, and it is listed last.
        order: int32 ``[B * H * q_blocks]``: the query blocks, numbered as they lie in ``blocks``, those that keep most
            first and neighbours near each other. Work begun in this order ends together, however unequal it is.
        block_n: tokens of a whole key block.
    """

    blocks: torch.Tensor
    spans: torch.Tensor
    order: torch.Tensor
    block_n: int

    def expand(self, batch: int, heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Blocks and spans of every batch and head, and the order; None for the order of a list that they share."""
        own = self.blocks.shape[:2] == (batch, heads)
        blocks, spans = (x.expand(batch, heads, -1, -1) for x in (self.blocks, self.spans))
        return blocks, spans, self.order if own else None

    def level_shares(self) -> torch.Tensor:
        """The share of block pairs at level 1, 2, 4 ..., float32 ``[n_levels]``, on the device; the rest is skipped.

        Read off the spans, of which there are few, rather than off the level map; four short launches.
        """
        device, exponents = self.spans.device, range(self.spans.shape[-1])
        # Blocks are rows by rows a block, rounded up; a span's tokens are too few to carry.
        round_up = tuple((self.block_n >> i) - 1 << TOKEN_BITS for i in exponents)
        shift = tuple((self.block_n >> i).bit_length() - 1 + TOKEN_BITS for i in exponents)
        blocks = self.spans + constant(round_up, torch.int32, device) >> constant(shift, torch.int32, device)
        return blocks.sum((0, 1, 2), dtype=torch.float32) / self.blocks.numel()


def build_block_list(
    levels: torch.Tensor,
    max_level: int,
    block_n: int,
    k_tokens: int,
    backend: str = "torch",
    order: torch.Tensor | None = None,
) -> BlockList:
    """Derive the block list of a level map.

    Args:
        levels: uint8 ``[B, H, q_blocks, k_blocks]``, any strides: powers of two up to ``max_level``; anything else is
            skipped. B and H may be 1 where a map serves every batch or head, and stay 1 in the list.
        max_level: the coarsest level there may be, ``block_n`` at most.
        block_n: tokens of a key block, a power of two up to 128.
        k_tokens: tokens of all ``k_blocks`` key blocks; the last may be ragged.
        backend: ``"triton"`` or ``"torch"``.
        order: of the query blocks, from an earlier list of the same map.
    """
    n_levels = max_level.bit_length()
    if backend == "triton":
        from .triton import list_blocks_triton

        return BlockList(*list_blocks_triton(levels, n_levels, block_n, k_tokens, order), block_n)
    # Unsigned wrap-around sorts skipped (0 - 1 = 255) after every level, and so must values be that are no level.
    below = levels - 1
    rank = below.masked_fill(levels & below != 0, 255)
    # Stable keeps blocks in memory order.
    blocks = torch.sort(rank.contiguous(), dim=-1, stable=True).indices.to(torch.int32)
    spans = _spans(levels, n_levels, block_n, k_tokens)
    return BlockList(blocks, spans, _order(spans, k_tokens) if order is None else order, block_n)


def _spans(levels: torch.Tensor, n_levels: int, block_n: int, k_tokens: int) -> torch.Tensor:
    tokens_of_last_block = k_tokens - (levels.shape[-1] - 1) * block_n
    spans = []
    for level in (1 << i for i in range(n_levels)):
        listed = levels == level
        ragged = listed[..., -1].int()
        count = listed.sum(-1, dtype=torch.int32)
        missing = block_n - tokens_of_last_block
        rows = count * (block_n // level) - ragged * (missing // level)
        tokens = (count > 0).int() * level - ragged * (missing % level)
        spans.append(rows << TOKEN_BITS | tokens)
    return torch.stack(spans, -1)


def _order(spans: torch.Tensor, k_tokens: int) -> torch.Tensor:
    rows = (spans >> TOKEN_BITS).sum(-1).flatten()
    sizes = (-2 * (rows.clamp(min=1) / k_tokens).log2()).floor().clamp(0, N_SIZES - 1)
    return sizes.argsort(stable=True).to(torch.int32)
