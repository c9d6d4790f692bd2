"""Which tokens stand for their block."""

from __future__ import annotations

import torch

from ..device_cache import device_cache
from ..reorder.orders import Orders, first_order

SAMPLE_STRIDE = 4
# What becomes of the weights of a pair of blocks: the numbers of estimators among all, as kernels know them.
SAMPLED_MAX, SAMPLED_SUM = 0, 1

_SEED = 20512


@device_cache(maxsize=32)
def sample_positions(length: int, device: torch.device) -> torch.Tensor:
    """One token from each run of four: int64 ``[ceil(length / 4)]``, ascending, the same for a length every time.

    The choice comes from a generator of its own, so torch's global ones are left alone.
    """
    starts = torch.arange(0, length, SAMPLE_STRIDE, device="cpu")
    generator = torch.Generator().manual_seed(_SEED)
    draws = torch.randint(SAMPLE_STRIDE, starts.shape, generator=generator, device="cpu")
    return (starts + draws % (length - starts).clamp(max=SAMPLE_STRIDE)).to(device)


def sample_of_heads(x: torch.Tensor, orders: Orders | None) -> Orders:
    """Orders of a quarter of the tokens: those sampled of each head of ``[B, H, L, D]``, in its order."""
    if orders is None:
        return Orders(sample_positions(x.shape[2], x.device)[None], first_order(x.shape[0], x.shape[1], x.device))
    return Orders(orders.index.index_select(1, sample_positions(x.shape[2], x.device)), orders.of_head)
