"""The call that INT8 kernels are tried on before they are trusted."""

from __future__ import annotations

import torch

# Relative error from which a result is wrong rather than coarse.
_WRONG = 0.1


def trial_tensors(device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What kernels are tried on: queries, keys and values in one, and a level map of it in blocks of 128."""
    # Numbers of a sine have no two keys alike, and leave torch's random numbers alone.
    x = torch.arange(256 * head_dim, device=device, dtype=torch.float32).mul(0.7).sin().view(1, 1, 256, head_dim)
    return x.to(dtype), torch.tensor([[1, 2], [2, 1]], dtype=torch.uint8, device=device)[None, None]


def check_trial(out: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare what came of INT8 with what is near it.

    Raises:
        RuntimeError: it is something else.
    """
    error = (out.float() - expected.float()).norm() / expected.float().norm()
    if not error < _WRONG:
        raise RuntimeError(f"INT8 attention is {float(error):.2g} away from exact attention")
