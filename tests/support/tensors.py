"""Random inputs and the measure of error that several tests share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from psa_core.ops.reorder import Orders

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Shape(NamedTuple):
    """Sizes of one attention call."""

    batch: int = 1
    heads: int = 1
    q_tokens: int = 128
    k_tokens: int = 128
    d: int = 64
    block_m: int = 128
    block_n: int = 128

    @property
    def blocks(self) -> tuple[int, int]:
        """Query blocks and key blocks."""
        return math.ceil(self.q_tokens / self.block_m), math.ceil(self.k_tokens / self.block_n)


def random_qkv(
    shape: Shape, dtype: torch.dtype = torch.float32, device: torch.device = DEVICE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values whose softmax is neither flat nor a single spike."""
    q, k, v = (
        torch.randn(shape.batch, shape.heads, tokens, shape.d, device=device)
        for tokens in (shape.q_tokens, shape.k_tokens, shape.k_tokens)
    )
    return (2 * q).to(dtype), k.to(dtype), (v + 0.5).to(dtype)


def random_levels(shape: Shape, device: torch.device = DEVICE) -> torch.Tensor:
    """A level map that uses every level of the block size, skipping included; no row is empty."""
    choices = torch.tensor([0, *(1 << i for i in range(shape.block_n.bit_length()))], dtype=torch.uint8)
    levels = choices[torch.randint(len(choices), (shape.batch, shape.heads, *shape.blocks))]
    keep = torch.randint(shape.blocks[1], (*levels.shape[:3], 1))
    kept = choices[torch.randint(1, len(choices), keep.shape)]
    return levels.scatter(-1, keep, kept).to(device)


def random_orders(n_orders: int, batch: int, heads: int, length: int, device: torch.device = DEVICE) -> Orders:
    """Some orders, and one of them for each head of each batch entry."""
    index = torch.stack([torch.randperm(length) for _ in range(n_orders)])
    return Orders(index.to(device), torch.randint(n_orders, (batch, heads), dtype=torch.int32).to(device))


def heads_alone(orders: Orders) -> Iterator[tuple[tuple[slice, slice], Orders]]:
    """Where each head lies in ``[B, H, ...]``, and the one order that it takes."""
    for b, h in itertools.product(*map(range, orders.of_head.shape)):
        order = orders.index[orders.of_head[b, h]]
        yield (slice(b, b + 1), slice(h, h + 1)), Orders(order[None], torch.zeros_like(orders.of_head[:1, :1]))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference by the norm of what is expected. NaN, which passes no bound, when an element is NaN."""
    assert actual.shape == expected.shape
    actual, expected = actual.to(expected.device).double(), expected.double()
    return ((actual - expected).norm() / expected.norm()).item()


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Dense attention from its definition, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
