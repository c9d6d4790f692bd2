"""Which tokens stand for their block."""

from __future__ import annotations

import torch

from ..device_cache import device_cache

SAMPLE_STRIDE = 4

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


# A reorder index is cached and so the same object from call to call.
@device_cache(maxsize=16)
def sampled_tokens(index: torch.Tensor) -> torch.Tensor:
    """The sampled tokens of the sequence ``tokens[index]``."""
    return index[sample_positions(len(index), index.device)]
