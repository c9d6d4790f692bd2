"""Grouped-query attention: several query heads, one after another, share a head of keys and values."""

from __future__ import annotations

import torch


def group_of(q: torch.Tensor, k: torch.Tensor) -> int:
    """How many query heads share a key head: query head h reads key head ``h // group``."""
    return q.shape[1] // k.shape[1]


def for_query_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """What belongs to key heads, ``[B, Hk, ...]``, repeated for so many query heads; itself where they are as many."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def for_key_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """The largest of what belongs to the query heads that share a key head, ``[B, H]``, for so many key heads."""
    return x if x.shape[1] == heads else x.unflatten(1, (heads, -1)).amax(2)
