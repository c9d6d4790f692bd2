"""Importance in plain torch: scores of pairs of blocks from a softmax over a part of the keys, and means of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..grouped import for_query_heads

# Logits that exist at once; 256 MB in float32.
_CHUNK_NUMBERS = 1 << 26


def scores_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    per_m: int,
    per_n: int,
    reduce: Callable[..., torch.Tensor],
    seen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Block maxima, or block sums, of the softmax of some queries over some keys, rows not yet divided by their sums.

    Args:
        q: ``[B, H, n_q, D]``; k: ``[B, Hk, n_k, D]``, block after block.
        per_m, per_n: queries and keys a block.
        reduce: ``torch.amax`` or ``torch.sum``.
        seen: int32 ``[n_q]``, how many of the keys, from the first on, each query sees; None for all.

    Returns:
        ``[B, H, q_blocks, k_blocks]`` in the dtype of q.
    """
    per_chunk = max(1, _CHUNK_NUMBERS // (q.shape[0] * q.shape[1] * k.shape[2] * per_m)) * per_m
    k = for_query_heads(k, q.shape[1])
    chunks = []
    for first, queries in zip(range(0, q.shape[2], per_chunk), q.split(per_chunk, 2), strict=True):
        logits = queries @ k.mT * q.shape[-1] ** -0.5
        here = slice(first, first + per_chunk)
        weights = logits.softmax(-1) if seen is None else softmax_over_seen(logits, seen[here])
        by_query_block = _by_blocks(weights.transpose(2, 3), per_m, reduce)
        chunks.append(_by_blocks(by_query_block.transpose(2, 3), per_n, reduce))
    return torch.cat(chunks, 2)


def softmax_over_seen(logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The softmax of each row over its first keys; zeros for the others, and in rows that see none.

    Args:
        logits: ``[..., n_q, n_k]``.
        seen: int32 ``[n_q]``.
    """
    unseen = torch.arange(logits.shape[-1], device=logits.device) >= seen[:, None]
    return logits.masked_fill(unseen, -math.inf).softmax(-1).masked_fill(unseen, 0.0)


def rows_of_sum_1(scores: torch.Tensor, may_be_empty: bool) -> torch.Tensor:
    """Divide each row by its sum, in place; one that sees no key that counts, as under the causal mask, stays zeros."""
    total = scores.sum(-1, keepdim=True)
    if may_be_empty:
        total.masked_fill_(total == 0, 1.0)
    return scores.div_(total)


def _by_blocks(x: torch.Tensor, size: int, reduce: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Maxima or sums of runs of ``size`` along the last dimension; the last may be shorter. No entry is negative."""
    blocks = math.ceil(x.shape[-1] / size)
    padded = torch.nn.functional.pad(x, (0, blocks * size - x.shape[-1]))
    return reduce(padded.unflatten(-1, (blocks, size)), -1)


def block_means(x: torch.Tensor, size: int) -> torch.Tensor:
    """Mean of each block of tokens ``[B, H, blocks, D]`` in float32, of float64 in that."""
    wide = torch.promote_types(x.dtype, torch.float32)
    whole = x.shape[2] // size
    means = x[:, :, : whole * size].unflatten(2, (whole, size)).mean(3, dtype=wide)
    if whole * size < x.shape[2]:
        tail = x[:, :, whole * size :].mean(2, dtype=wide)
        means = torch.cat([means, tail[:, :, None]], 2)
    return means
