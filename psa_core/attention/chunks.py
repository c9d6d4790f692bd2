"""Heads in chunks: what a bound of the extra memory makes of a call."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch

from .extra_memory import ExtraMemory

log = logging.getLogger(__name__)

_GIB = 2**30


class Chunk(NamedTuple):
    """The heads of some batch entries that are computed at once: those of queries, and those of keys."""

    batch: slice
    heads: slice
    k_heads: slice

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """What a tensor ``[B | 1, H | 1, ...]`` has of them, a view; an extent of 1 serves all."""
        return _cut_out(x, self.batch, self.heads)

    def copy_of(self, x: torch.Tensor) -> torch.Tensor:
        """The same in memory of its own: for a view that begins anywhere, kernels would be compiled again."""
        return x if self == WHOLE else self.of(x).clone(memory_format=torch.contiguous_format)

    def of_keys(self, x: torch.Tensor) -> torch.Tensor:
        """The same of a tensor ``[B | 1, Hk | 1, ...]``."""
        return _cut_out(x, self.batch, self.k_heads)


# All of them.
WHOLE = Chunk(slice(None), slice(None), slice(None))


def chunks_for(gib: float, needed: ExtraMemory, batch: int, heads: int, group: int = 1) -> list[Chunk]:
    """The chunks in which the heads of a call keep to a bound; heads one by one where even that is too little for one.

    Args:
        gib: the bound in GiB; 0 for none.
        needed: what the call takes.
        batch, heads: of the call's keys.
        group: how many heads of queries share one of these.
    """
    if not gib:
        return [WHOLE]
    a_head = needed.a_head * group
    at_once = int(gib * _GIB - needed.always) // a_head
    if at_once < 1:
        least = (needed.always + a_head) / _GIB
        _warn(f"PSA: max_extra_memory {gib:.3g} GiB is too little: one head at a time takes {least:.3g} GiB")
    return cut_heads(batch, heads, at_once, group)


def cut_heads(batch: int, heads: int, at_once: int, group: int = 1) -> list[Chunk]:
    """As few chunks, of nearly equal size, as hold ``at_once`` heads of keys at the most, and one at the least."""
    if max(1, at_once) >= batch * heads:
        return [WHOLE]
    batches = _cut(batch, at_once)
    parts = _cut(heads, at_once // math.ceil(batch / len(batches)))
    return [Chunk(some, slice(part.start * group, part.stop * group), part) for some in batches for part in parts]


def join(parts: Iterable[tuple[Chunk, torch.Tensor]], batch: int, heads: int) -> torch.Tensor:
    """One tensor ``[B, H, ...]`` of those of its chunks, each of which may go when it has been copied."""
    whole = None
    for chunk, part in parts:
        if chunk == WHOLE:
            return part
        if whole is None:
            whole = part.new_empty((batch, heads, *part.shape[2:]))
        whole[chunk.batch, chunk.heads] = part
    assert whole is not None
    return whole


def _cut_out(x: torch.Tensor, *parts: slice) -> torch.Tensor:
    for dim, part in enumerate(parts):
        if x.shape[dim] > 1:
            x = x[(slice(None),) * dim + (part,)]
    return x


def _cut(n: int, most: int) -> list[slice]:
    runs = math.ceil(n / max(1, most))
    return [slice(*bounds) for bounds in pairwise(n * i // runs for i in range(runs + 1))]


@lru_cache(maxsize=64)
def _warn(message: str) -> None:
    """Once each, as calls come by the thousand."""
    log.warning("%s", message)
