"""Numbers that kernels read, held on the device."""

from __future__ import annotations

import torch

from .device_cache import device_cache


# Every copy of numbers to a GPU waits for it, so they are copied once.
@device_cache(maxsize=256)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``torch.tensor(values)``, the same tensor every time: nobody may change it."""
    return torch.tensor(values, dtype=dtype, device=device)
