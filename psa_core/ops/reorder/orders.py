"""Which order each head takes its tokens in."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..device_cache import device_cache


class Orders(NamedTuple):
    """A few orders of the tokens, and which of them each head takes.

    Attributes:
        index: int64 ``[n_orders, L]`` on the device, fewer than 2**31 numbers: order o of the tokens is
            ``tokens[index[o]]``.
        of_head: int32 ``[B, H]`` on the device: the order of each head of each batch entry.
    """

    index: torch.Tensor  # type: ignore[assignment]  # in place of tuple.index
    of_head: torch.Tensor

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """Copy the tokens of each head in its order; x is ``[B, H, L, D]``, any strides."""
        if len(self.index) == 1:
            return x.index_select(2, self.index[0])
        return x.gather(2, self.index[self.of_head][..., None].expand(-1, -1, -1, x.shape[3]))

    def restore(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`take`, for an index that is cached or lives on, as its inverse is kept for it."""
        return Orders(inverse(self.index), self.of_head).take(x)


# An index is cached and so the same object from call to call.
@device_cache(maxsize=16)
def inverse(index: torch.Tensor) -> torch.Tensor:
    """The inverse of each order of an index, int64 ``[n_orders, L]``: ``tokens[index[o]][inverse[o]] = tokens``."""
    return torch.argsort(index, -1)


@device_cache(maxsize=16)
def first_order(batch: int, heads: int, device: torch.device) -> torch.Tensor:
    """The numbers of heads that all take the first order: zeros, int32 ``[B, H]``."""
    return torch.zeros((batch, heads), dtype=torch.int32, device=device)


@device_cache(maxsize=16)
def as_they_lie(batch: int, heads: int, tokens: int, device: torch.device) -> Orders:
    """The order of tokens that lie in it already, for kernels that are told one."""
    return Orders(torch.arange(tokens, device=device)[None], first_order(batch, heads, device))


def take_tokens(x: torch.Tensor, positions: torch.Tensor, orders: Orders | None) -> torch.Tensor:
    """Copy the tokens at some positions, int64 ``[n]``, of each head's order; x is ``[B, H, L, D]``, any strides."""
    if orders is None:
        return x.index_select(2, positions)
    return Orders(orders.index[:, positions], orders.of_head).take(x)


def order_tensors(orders: Orders | None, stand_in: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``index`` and ``of_head`` as kernels read them; ``stand_in`` for both where there are none to read."""
    if orders is None:
        return stand_in, stand_in
    assert orders.index.numel() < 1 << 31, "kernels count places in the index in 32 bits"
    return orders.index.contiguous(), orders.of_head.contiguous()
