"""Importance from its definition, in float64 (arXiv 2512.04025, section 3.3). The oracle of this folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..causal import Causal


def sampled_naive(
    q: torch.Tensor,
    k: torch.Tensor,
    q_sample: torch.Tensor,
    k_sample: torch.Tensor,
    block_m: int,
    block_n: int,
    causal: Causal | None = None,
    *,
    reduce: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """``S[i, j] = reduce over sampled (q in i, k in j) of softmax_k(q . k / sqrt(D))``, each row divided by its sum.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, Hk, Lk, D]``: head h of q reads head ``h // (H / Hk)`` of it.
        q_sample, k_sample: positions of the sampled tokens, ascending.
        causal: a query counts the sampled keys up to its own position; a row of a block that sees none is 0.
        reduce: ``torch.amax`` or ``torch.sum``; the sum of all tokens as their sample is the mass that is estimated.

    Returns:
        float64 ``[B, H, q_blocks, k_blocks]``.
    """
    sees = _sees(q_sample, k_sample, causal)
    return _scores(q, k, q_sample, k_sample, block_m, block_n, sees, reduce)


sampled_max_naive, sampled_sum_naive = (partial(sampled_naive, reduce=reduce) for reduce in (torch.amax, torch.sum))


def mean_naive(
    q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int, causal: Causal | None = None
) -> torch.Tensor:
    """Softmax over key blocks of ``mean(q in i) . mean(k in j) / sqrt(D) + ln(tokens in j)``.

    If causal, over those whose last key the last query of block i sees.
    Args and result: as in :func:`sampled_naive`.
    """
    q_mean = torch.stack([block.double().mean(2) for block in q.split(block_m, 2)], 2)
    k_mean = torch.stack([block.double().mean(2) for block in k.split(block_n, 2)], 2)
    tokens = torch.tensor([block.shape[2] for block in k.split(block_n, 2)], device=k.device)
    logits = q_mean @ _for_heads(k_mean, q).mT / q.shape[-1] ** 0.5 + tokens.double().log()
    return _softmax(logits, _sees(_last_tokens(q, block_m), _last_tokens(k, block_n), causal))


def _scores(
    q: torch.Tensor,
    k: torch.Tensor,
    q_sample: torch.Tensor,
    k_sample: torch.Tensor,
    block_m: int,
    block_n: int,
    sees: torch.Tensor,
    reduce: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Of each pair of blocks, from the sampled queries and keys and which of these those see."""
    logits = q[:, :, q_sample].double() @ _for_heads(k, q)[:, :, k_sample].double().mT / q.shape[-1] ** 0.5
    weights = _softmax(logits, sees)
    rows = [
        torch.stack(
            [
                reduce(weights[:, :, q_sample // block_m == i][..., k_sample // block_n == j], (-2, -1))
                for j in range(-(-k.shape[2] // block_n))
            ],
            -1,
        )
        for i in range(-(-q.shape[2] // block_m))
    ]
    importance = torch.stack(rows, -2)
    return (importance / importance.sum(-1, keepdim=True)).nan_to_num()


def sub_block_mass_naive(
    q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int, size: int = 8, causal: Causal | None = None
) -> torch.Tensor:
    """The sum of ``softmax_b(mean(q in a) . mean(k in b) / sqrt(D))`` over runs a of block i and b of block j.

    Each row is divided by its sum. Runs have ``size`` tokens; a ragged last one counts as a whole one. If causal, a run
    of keys counts for a run of queries whose last one sees its last key.

    Args and result: as in :func:`sampled_naive`.
    """
    q_mean, k_mean = (torch.stack([run.double().mean(2) for run in x.split(size, 2)], 2) for x in (q, k))
    q_runs, k_runs = (torch.arange(x.shape[2], device=x.device) for x in (q_mean, k_mean))
    sees = _sees(_last_tokens(q, size), _last_tokens(k, size), causal)
    return _scores(q_mean, k_mean, q_runs, k_runs, block_m // size, block_n // size, sees, torch.sum)


def _for_heads(k: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return k.repeat_interleave(q.shape[1] // k.shape[1], 1)


def _last_tokens(x: torch.Tensor, size: int) -> torch.Tensor:
    return torch.tensor([run[-1] for run in torch.arange(x.shape[2]).split(size)], device=x.device)


def _sees(queries: torch.Tensor, keys: torch.Tensor, causal: Causal | None) -> torch.Tensor:
    """Which of some keys each of some queries sees, by their positions: bool ``[queries, keys]``."""
    everything = torch.ones(len(queries), len(keys), dtype=torch.bool, device=queries.device)
    return everything if causal is None else keys <= queries[:, None] + causal.offset


def _softmax(logits: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(~sees, -torch.inf).softmax(-1).nan_to_num()
