"""Importance: how much each key block matters to each query block. Estimators are registered by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch

from ..block_positions import block_positions
from ..constant import constant
from ..reorder.orders import Orders
from .sampling import SAMPLE_STRIDE, SAMPLED_MAX, SAMPLED_SUM, sample_of_heads

# Sampled logits that exist at once; 256 MB in float32.
_CHUNK_NUMBERS = 1 << 26


class Estimator(Protocol):
    """Arguments and result as of :func:`sampled_max`."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        block_m: int,
        block_n: int,
        backend: str = "torch",
        orders: Orders | None = None,
        blocks: tuple[int, ...] | None = None,
    ) -> torch.Tensor: ...


def sampled_max(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Largest softmax weight between sampled queries and keys of two blocks (arXiv 2512.04025, section 3.3).

    A quarter of the tokens of each block is sampled, one from each run of four; the choice depends on the length only.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, H, Lk, D]``; any strides.
        block_m, block_n: tokens a query block and a key block.
        backend: ``"triton"`` or ``"torch"``; the latter holds at most 2**26 logits at a time (or one query block's).
        orders: of q and k, whose Lq and Lk are L then: blocks of a head are cut from its tokens in its order, without a
            copy of them. None for the order they have.
        blocks: numbers of the query blocks whose rows are wanted; None for all of them.

    Returns:
        float32 ``[B, H, q_blocks, k_blocks]``; each row sums to 1.
    """
    return sampled(q, k, block_m, block_n, backend, orders, blocks, SAMPLED_MAX)


def sampled_sum(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Sum of the softmax weights between sampled queries and keys of two blocks: nearer to the mass than the maximum.

    Args and result: as of :func:`sampled_max`.
    """
    return sampled(q, k, block_m, block_n, backend, orders, blocks, SAMPLED_SUM)


def mean(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Softmax over key blocks of block-mean query times block-mean key: a cheap estimator.

    A key block's logit gets the logarithm of its token count, as every pooled row does.
    Args and result: as of :func:`sampled_max`, but ``"torch"`` takes no orders.
    """
    if backend == "triton":
        from ..pyramid.triton import block_means_triton

        q_mean, k_mean = block_means_triton(q, block_m, orders), block_means_triton(k, block_n, orders)
    else:
        assert orders is None, "torch cuts blocks from the order that tokens have"
        q_mean, k_mean = _block_means(q, block_m), _block_means(k, block_n)
    if blocks is not None:
        q_mean = q_mean.index_select(2, constant(blocks, torch.int64, q.device))
    logits = (q_mean * q.shape[-1] ** -0.5) @ k_mean.mT
    tail = k.shape[2] % block_n
    if tail:
        # What all logits share drops out of the softmax, so only a ragged last block needs its token count.
        logits[..., -1] += math.log(tail / block_n)
    return logits.softmax(-1)


ESTIMATORS: dict[str, Estimator] = {"sampled_max": sampled_max, "sampled_sum": sampled_sum, "mean": mean}


def sampled(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str,
    orders: Orders | None,
    blocks: tuple[int, ...] | None,
    estimator: int | torch.Tensor,
) -> torch.Tensor:
    """What the sampled estimators have in common, by number: ``SAMPLED_MAX`` or ``SAMPLED_SUM``.

    With ``"triton"`` it may be each head's own, int32 ``[B, H]`` on the device; rows of heads that have another number
    hold no importance, but anything.
    """
    q_sample, k_sample = sample_of_heads(q, orders), sample_of_heads(k, orders)
    if blocks is not None:
        at = block_positions(blocks, block_m // SAMPLE_STRIDE, q_sample.index.shape[1], q.device)
        q_sample = q_sample._replace(index=q_sample.index.index_select(1, at))
    if backend == "triton":
        from .triton import sampled_triton

        scores = sampled_triton(q, k, q_sample, k_sample, block_m, block_n, estimator)
    else:
        reduce = torch.sum if estimator == SAMPLED_SUM else torch.amax
        scores = _sampled_torch(q, k, q_sample, k_sample, block_m, block_n, reduce)
    return scores.div_(scores.sum(-1, keepdim=True))


def _sampled_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    q_sample: Orders,
    k_sample: Orders,
    block_m: int,
    block_n: int,
    reduce: Callable[..., torch.Tensor],
) -> torch.Tensor:
    keys = k_sample.take(k).float().mT
    per_block = block_m // SAMPLE_STRIDE
    per_chunk = max(1, _CHUNK_NUMBERS // (q.shape[0] * q.shape[1] * keys.shape[3] * per_block)) * per_block
    chunks = []
    for chunk in q_sample.index.split(per_chunk, 1):
        queries = q_sample._replace(index=chunk).take(q)
        weights = (queries.float() @ keys * q.shape[-1] ** -0.5).softmax(-1)
        by_query_block = _by_blocks(weights.transpose(2, 3), per_block, reduce)
        chunks.append(_by_blocks(by_query_block.transpose(2, 3), block_n // SAMPLE_STRIDE, reduce))
    return torch.cat(chunks, 2)


def _by_blocks(x: torch.Tensor, size: int, reduce: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Maxima or sums of runs of ``size`` along the last dimension; the last may be shorter. No entry is negative."""
    blocks = math.ceil(x.shape[-1] / size)
    padded = torch.nn.functional.pad(x, (0, blocks * size - x.shape[-1]))
    return reduce(padded.unflatten(-1, (blocks, size)), -1)


def _block_means(x: torch.Tensor, size: int) -> torch.Tensor:
    """Mean of each block of tokens ``[B, H, blocks, D]`` in float32."""
    whole = x.shape[2] // size
    means = x[:, :, : whole * size].unflatten(2, (whole, size)).mean(3, dtype=torch.float32)
    if whole * size < x.shape[2]:
        tail = x[:, :, whole * size :].mean(2, dtype=torch.float32)
        means = torch.cat([means, tail[:, :, None]], 2)
    return means
