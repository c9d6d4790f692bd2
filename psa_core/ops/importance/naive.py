"""Importance from its definition, in float64 (arXiv 2512.04025, section 3.3). The oracle of this folder."""

from __future__ import annotations

from collections.abc import Callable

import torch


def sampled_max_naive(
    q: torch.Tensor, k: torch.Tensor, q_sample: torch.Tensor, k_sample: torch.Tensor, block_m: int, block_n: int
) -> torch.Tensor:
    """``S[i, j] = max over sampled (q in i, k in j) of softmax_k(q . k / sqrt(D))``, each row divided by its sum.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, H, Lk, D]``.
        q_sample, k_sample: positions of the sampled tokens, ascending.

    Returns:
        float64 ``[B, H, q_blocks, k_blocks]``.
    """
    return _sampled_naive(q, k, q_sample, k_sample, block_m, block_n, torch.amax)


def sampled_sum_naive(
    q: torch.Tensor, k: torch.Tensor, q_sample: torch.Tensor, k_sample: torch.Tensor, block_m: int, block_n: int
) -> torch.Tensor:
    """The same with the sum in place of the maximum; of all tokens as their sample it is the mass that is estimated.

    Args and result: as of :func:`sampled_max_naive`.
    """
    return _sampled_naive(q, k, q_sample, k_sample, block_m, block_n, torch.sum)


def mean_naive(q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int) -> torch.Tensor:
    """Softmax over key blocks of ``mean(q in i) . mean(k in j) / sqrt(D) + ln(tokens in j)``.

    Args and result: as of :func:`sampled_max_naive`.
    """
    q_mean = torch.stack([block.double().mean(2) for block in q.split(block_m, 2)], 2)
    k_mean = torch.stack([block.double().mean(2) for block in k.split(block_n, 2)], 2)
    tokens = torch.tensor([block.shape[2] for block in k.split(block_n, 2)], device=k.device)
    return (q_mean @ k_mean.mT / q.shape[-1] ** 0.5 + tokens.double().log()).softmax(-1)


def _sampled_naive(
    q: torch.Tensor,
    k: torch.Tensor,
    q_sample: torch.Tensor,
    k_sample: torch.Tensor,
    block_m: int,
    block_n: int,
    reduce: Callable[..., torch.Tensor],
) -> torch.Tensor:
    logits = q[:, :, q_sample].double() @ k[:, :, k_sample].double().mT / q.shape[-1] ** 0.5
    weights = logits.softmax(-1)
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
    return importance / importance.sum(-1, keepdim=True)


def sub_block_mass_naive(q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int, size: int = 8) -> torch.Tensor:
    """The sum of ``softmax_b(mean(q in a) . mean(k in b) / sqrt(D))`` over runs a of block i and b of block j.

    Each row is divided by its sum. Runs have ``size`` tokens; a ragged last one counts as a whole one.

    Args and result: as of :func:`sampled_max_naive`.
    """
    q_mean, k_mean = (torch.stack([run.double().mean(2) for run in x.split(size, 2)], 2) for x in (q, k))
    q_runs, k_runs = (torch.arange(x.shape[2], device=x.device) for x in (q_mean, k_mean))
    return _sampled_naive(q_mean, k_mean, q_runs, k_runs, block_m // size, block_n // size, torch.sum)
