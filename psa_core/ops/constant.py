"""Numbers that kernels read, held on the device."""

from __future__ import annotations

from functools import lru_cache

import torch


# Every copy of numbers to a GPU waits for it, so they are copied once. Made out of inference mode, which the cache
# outlives.
@lru_cache(maxsize=256)
@torch.inference_mode(False)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``torch.tensor(values)``, the same tensor every time: nobody may change it."""
    return torch.tensor(values, dtype=dtype, device=device)
