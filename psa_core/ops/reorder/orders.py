"""Which order each head takes its tokens in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from ..device_cache import device_cache


class Orders(NamedTuple):
    """A few orders of the tokens, and which of them each head takes.

    Attributes:
        index: int64 or int32 ``[n_orders, L]`` on the device, fewer than 2**31 numbers: order o of the tokens is
            ``tokens[index[o]]``.
        of_head: int32 ``[B, H]`` on the device: the order of each head of each batch entry.
        of_queries: orders of the queries, where they are others than those of keys and values; None where one order
            serves all.
    """

    index: torch.Tensor  # type: ignore[assignment]  # in place of tuple.index
    of_head: torch.Tensor
    of_queries: Orders | None = None

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """Copy the tokens of each head in its order; x is ``[B, H, L, D]``, any strides."""
        if len(self.index) == 1:
            return x.index_select(2, self.index[0])
        return x.gather(2, self.index[self.of_head].long()[..., None].expand(-1, -1, -1, x.shape[3]))

    def take_call(self, q: torch.Tensor, *keys_and_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Copy queries, and keys or values, each in its own order."""
        return (self.of_queries or self).take(q), *map(self.take, keys_and_values)

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`take`."""
        return Orders(inverse(self.index), self.of_head).take(x)

    def of_heads(self, part: Callable[[torch.Tensor], torch.Tensor]) -> Orders:
        """Those of a part of the heads, which ``part`` takes from a tensor ``[B, H]``."""
        of_queries = None if self.of_queries is None else self.of_queries.of_heads(part)
        return Orders(self.index, part(self.of_head), of_queries)

    def repeated(self, times: int) -> Orders:
        """The same orders for so many batches that follow one another."""
        of_queries = None if self.of_queries is None else self.of_queries.repeated(times)
        return Orders(self.index, self.of_head.repeat(times, 1), of_queries)

    @staticmethod
    def cat(orders: Sequence[Orders]) -> Orders:
        """Those of some batches for one that has all of their entries, one after another."""
        of_queries = None
        if any(each.of_queries is not None for each in orders):
            of_queries = Orders.cat([each.of_queries or each for each in orders])
        starts = accumulate((len(each.index) for each in orders[:-1]), initial=0)
        of_head = [each.of_head + start for each, start in zip(orders, starts, strict=True)]
        return Orders(torch.cat([each.index for each in orders]), torch.cat(of_head), of_queries)

    def widened(self) -> Orders:
        """The same with indices as kernels read them, int64: copied once for all kernels of a call."""
        of_queries = None if self.of_queries is None else self.of_queries.widened()
        return Orders(self.index.long(), self.of_head, of_queries)

    @property
    def nbytes(self) -> int:
        """Of the orders themselves, those of the queries among them."""
        return self.index.nbytes + (0 if self.of_queries is None else self.of_queries.nbytes)


def inverse(index: torch.Tensor) -> torch.Tensor:
    """The inverse of each order of an index, int64 ``[n_orders, L]``: ``tokens[index[o]][inverse[o]] = tokens``."""
    places = torch.arange(index.shape[1], device=index.device).expand(index.shape)
    return torch.empty_like(places).scatter_(1, index.long(), places)


def queries_of(orders: Orders | None) -> Orders | None:
    """The orders of the queries."""
    return orders if orders is None or orders.of_queries is None else orders.of_queries


@device_cache(maxsize=16)
def first_order(batch: int, heads: int, device: torch.device) -> torch.Tensor:
    """The numbers of heads that all take the first order: zeros, int32 ``[B, H]``."""
    return torch.zeros((batch, heads), dtype=torch.int32, device=device)


@device_cache(maxsize=16)
def as_they_lie(batch: int, heads: int, tokens: int, device: torch.device) -> Orders:
    """The order of tokens that lie in it already, for kernels that are told one."""
    return Orders(torch.arange(tokens, device=device)[None], first_order(batch, heads, device))


def in_order(
    orders: Orders | None, backend: str, q: torch.Tensor, *keys_and_values: torch.Tensor
) -> tuple[Orders | None, tuple[torch.Tensor, ...]]:
    """Orders and tokens as ops take them: kernels read tokens in their orders, and for ``"torch"`` they are copied."""
    if orders is None:
        return None, (q, *keys_and_values)
    if backend == "torch":
        return None, orders.take_call(q, *keys_and_values)
    return orders.widened(), (q, *keys_and_values)


def take_queries(x: torch.Tensor, positions: torch.Tensor, orders: Orders | None) -> torch.Tensor:
    """Copy what is at some positions, int64 ``[n]``, of each head's order of the queries.

    Args:
        x: queries, or what came of them, ``[B, H, L, D]``, any strides.
    """
    of_queries = queries_of(orders)
    if of_queries is None:
        return x.index_select(2, positions)
    return Orders(of_queries.index[:, positions], of_queries.of_head).take(x)


def order_tensors(orders: Orders | None, stand_in: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``index`` and ``of_head`` as kernels read them; ``stand_in`` for both where there are none to read."""
    if orders is None:
        return stand_in, stand_in
    assert orders.index.numel() < 1 << 31, "kernels count places in the index in 32 bits"
    return orders.index.long().contiguous(), orders.of_head.contiguous()
