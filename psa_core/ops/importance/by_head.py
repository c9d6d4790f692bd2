"""Importance whose heads have estimators of their own."""

from __future__ import annotations

import torch

from ..causal import Causal
from ..reorder.orders import Orders
from .estimators import ESTIMATORS, sampled
from .sampling import SAMPLED_MAX, SAMPLED_SUM

_NUMBERS = {name: number for number, name in enumerate(ESTIMATORS)}


def importance_by_head(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    estimators: tuple[str, ...],
    of_head: torch.Tensor,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """The importance of each head by its own estimator, bit for bit what that finds for it beside any others.

    With ``"triton"`` both sampled estimators are one launch, in which a head costs what its own one costs.

    Args:
        q, k, block_m, block_n, backend, orders, blocks, causal: as in the estimators.
        estimators: names of those that some head has, or may have; the others are not computed.
        of_head: int32 ``[B, H]`` on the device: each head's estimator, by its place in ``ESTIMATORS``.

    Returns:
        float32 ``[B, H, q_blocks, k_blocks]``; each row sums to 1.
    """
    first, *others = estimators
    if others and backend == "triton":
        importance = sampled(q, k, block_m, block_n, backend, orders, blocks, of_head, causal)
        others = [name for name in estimators if _NUMBERS[name] not in (SAMPLED_MAX, SAMPLED_SUM)]
    else:
        importance = ESTIMATORS[first](q, k, block_m, block_n, backend, orders, blocks, causal)
    for name in others:
        its_own = (of_head == _NUMBERS[name])[..., None, None]
        here = ESTIMATORS[name](q, k, block_m, block_n, backend, orders, blocks, causal)
        importance = torch.where(its_own, here, importance)
    return importance
