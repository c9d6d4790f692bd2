"""The cosine cap: how far each key block may be pooled by the likeness of its keys."""

from __future__ import annotations

import torch

from ...settings.config import SIM_LEVELS, PSAConfig
from ..reorder.orders import Orders
from .torch import similarity_cap_torch


def similarity_cap(
    k: torch.Tensor, config: PSAConfig, backend: str = "torch", orders: Orders | None = None
) -> torch.Tensor:
    """The coarsest level each key block may take by the likeness of its keys (``use_sim_mask``).

    Level r is allowed where the mean cosine similarity of the key pairs (0, r - 1), (r, 2r - 1) ... of the block
    exceeds its threshold; the highest allowed r counts, 1 if there is none. A block without a whole pair allows none.

    Args:
        k: ``[B, H, L, D]``, any strides.
        config: ``block_n`` and ``sim_thresholds``.
        backend: ``"triton"`` or ``"torch"``.
        orders: blocks of a head are cut from its keys in its order, without a copy of them. None for the order that
            they have; ``"torch"`` takes no other.

    Returns:
        uint8 ``[B, H, 1, k_blocks]``.
    """
    thresholds = {level: config.sim_thresholds[key] for key, level in SIM_LEVELS.items()}
    if backend == "triton":
        from .triton import similarity_cap_triton

        return similarity_cap_triton(k, config.block_n, thresholds, orders)
    assert orders is None, "torch cuts blocks from the order that keys have"
    return similarity_cap_torch(k, config.block_n, thresholds)
