"""Importance as the study measures it: the library's estimators by name, and what all of them estimate."""

from __future__ import annotations

import math

import torch

from psa_core.ops.importance.estimators import ESTIMATORS

TRUE_MASS = "true mass"


def importance(name: str, q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int) -> torch.Tensor:
    """Importance of key blocks to query blocks, float32 ``[B, H, q_blocks, k_blocks]``, rows summing to 1.

    Args:
        name: of an estimator of the library, or :data:`TRUE_MASS`, ``sampled_sum`` of all tokens, which costs more than
            dense attention.
        q, k: ``[B, H, L, D]`` in the order in which blocks are cut.
    """
    if name in ESTIMATORS:
        return ESTIMATORS[name](q, k, block_m, block_n, "torch", None)
    assert name == TRUE_MASS, name
    return _mass(q, k, block_m, block_n)


def effective_keys(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """How many keys a head's queries attend to: the exponential of the mean entropy, ``[H]``, of a batch of one."""
    counts = []
    for h in range(q.shape[1]):
        # A quarter of the queries tells as much.
        logits = q[0, h, ::4] @ k[0, h].mT * q.shape[-1] ** -0.5
        weights = logits.softmax(-1)
        counts.append(torch.special.entr(weights).sum(-1).mean().exp())
    return torch.stack(counts)


def _mass(q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int) -> torch.Tensor:
    """Softmax weight between blocks, head by head."""
    heads = []
    for h in range(q.shape[1]):
        weights = (q[:, h] @ k[:, h].mT * q.shape[-1] ** -0.5).softmax(-1)
        heads.append(_block_sums(_block_sums(weights, block_n).mT, block_m).mT)
    mass = torch.stack(heads, 1)
    return mass / mass.sum(-1, keepdim=True)


def _block_sums(x: torch.Tensor, size: int) -> torch.Tensor:
    """Sums of runs of ``size`` along the last dimension; the last run may be shorter."""
    blocks = math.ceil(x.shape[-1] / size)
    return torch.nn.functional.pad(x, (0, blocks * size - x.shape[-1])).unflatten(-1, (blocks, size)).sum(-1)
