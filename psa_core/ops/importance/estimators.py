"""Importance: how much each key block matters to each query block. Estimators are registered by name."""

from __future__ import annotations

import math
from typing import Protocol

import torch

from ..block_positions import block_positions
from ..causal import Causal, seen_runs, seen_samples
from ..constant import constant
from ..grouped import for_query_heads
from ..reorder.orders import Orders, queries_of
from .sampling import SAMPLE_STRIDE, SAMPLED_MAX, SAMPLED_SUM, sample_of_heads
from .sub_blocks import sub_block_mass
from .torch import block_means, rows_of_sum_1, scores_torch, softmax_over_seen


class Estimator(Protocol):
    """Arguments and result as in :func:`sampled_max`."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        block_m: int,
        block_n: int,
        backend: str = "torch",
        orders: Orders | None = None,
        blocks: tuple[int, ...] | None = None,
        causal: Causal | None = None,
    ) -> torch.Tensor: ...


def sampled_max(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """Largest softmax weight between sampled queries and keys of two blocks (arXiv 2512.04025, section 3.3).

    A quarter of the tokens of each block is sampled, one from each run of four; the choice depends on the length only.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, Hk, Lk, D]``, Hk a divisor of H; any strides.
        block_m, block_n: tokens a query block and a key block.
        backend: ``"triton"`` or ``"torch"``; the latter holds at most 2**26 logits at a time (or one query block's).
        orders: of k, and of q with them: blocks of a head are cut from its tokens in its order, without a copy of them.
            None for the order they have.
        blocks: numbers of the query blocks whose rows are wanted; None for all of them.
        causal: a query counts keys that it sees, and nothing else; None for all keys. Needs tokens as they lie.

    Returns:
        float32, of float64 in that, ``[B, H, q_blocks, k_blocks]``; each row sums to 1, or to 0 if no key counts.
    """
    return sampled(q, k, block_m, block_n, backend, orders, blocks, SAMPLED_MAX, causal)


def sampled_sum(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """Sum of the softmax weights between sampled queries and keys of two blocks: nearer to the mass than the maximum.

    Args and result: as in :func:`sampled_max`.
    """
    return sampled(q, k, block_m, block_n, backend, orders, blocks, SAMPLED_SUM, causal)


def mean(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """Softmax over key blocks of block-mean query times block-mean key: a cheap estimator.

    A key block's logit gets the logarithm of its token count, as every pooled row does. Under the causal mask a key
    block counts whose last key the query block's last query sees.
    Args and result: as in :func:`sampled_max`, but ``"torch"`` takes no orders.
    """
    if backend == "triton":
        from ..pyramid.triton import block_means_triton

        q_mean = block_means_triton(q, block_m, queries_of(orders))
        k_mean = block_means_triton(k, block_n, orders)
    else:
        assert orders is None, "torch cuts blocks from the order that tokens have"
        q_mean, k_mean = block_means(q, block_m), block_means(k, block_n)
    if blocks is not None:
        q_mean = q_mean.index_select(2, constant(blocks, torch.int64, q.device))
    logits = (q_mean * q.shape[-1] ** -0.5) @ for_query_heads(k_mean, q.shape[1]).mT
    tail = k.shape[2] % block_n
    if tail:
        # What all logits share drops out of the softmax, so only a ragged last block needs its token count.
        logits[..., -1] += math.log(tail / block_n)
    if causal is not None:
        return softmax_over_seen(logits, seen_runs(causal, block_m, block_n, blocks, q.device))
    return logits.softmax(-1)


ESTIMATORS: dict[str, Estimator] = {
    "sampled_max": sampled_max,
    "sampled_sum": sampled_sum,
    "mean": mean,
    "sub_block_mass": sub_block_mass,
}


def sampled(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str,
    orders: Orders | None,
    blocks: tuple[int, ...] | None,
    estimator: int | torch.Tensor,
    causal: Causal | None = None,
) -> torch.Tensor:
    """What the sampled estimators have in common, by number: ``SAMPLED_MAX`` or ``SAMPLED_SUM``.

    With ``"triton"`` it may be each head's own, int32 ``[B, H]`` on the device; rows of heads that have another number
    hold no importance, but anything.
    """
    q_sample, k_sample = sample_of_heads(q, queries_of(orders)), sample_of_heads(k, orders)
    if blocks is not None:
        at = block_positions(blocks, block_m // SAMPLE_STRIDE, q_sample.index.shape[1], q.device)
        q_sample = q_sample._replace(index=q_sample.index.index_select(1, at))
    seen = None if causal is None else seen_samples(causal, q_sample.index[0], k_sample.index[0])
    if backend == "triton":
        from .triton import sampled_triton

        scores = sampled_triton(q, k, q_sample, k_sample, block_m, block_n, estimator, seen)
    else:
        reduce = torch.sum if estimator == SAMPLED_SUM else torch.amax
        wide = torch.promote_types(q.dtype, torch.float32)
        samples = q_sample.take(q).to(wide), k_sample.take(k).to(wide)
        scores = scores_torch(*samples, block_m // SAMPLE_STRIDE, block_n // SAMPLE_STRIDE, reduce, seen)
    return rows_of_sum_1(scores, causal is not None)
