"""Reference frames: pictures that a model looks at, in front of the clip in the latent."""

from __future__ import annotations

import torch

_CLOSE = 1e-2


def leading_frames(frames: torch.Tensor, mask: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """How many latent frames of one VACE input come before the clip's own, 0-dim on its device.

    A frame of video is told as two halves, of what is kept and of what is made anew, both through the autoencoder. A
    reference is in the first half; the second is empty as no picture makes it, and its mask makes nothing anew.

    Args:
        frames: ``[B, 2 C, T, H, W]``.
        mask: ``[B, 64, T, H, W]``, 0 where the video is kept.
        empty: ``[1, C, 1, 1, 1]``.
    """
    channels = empty.shape[1]
    anew = frames[:, channels : 2 * channels].float()
    others = (0, 1, 3, 4)
    unused = ((anew - empty.to(anew)).abs() < _CLOSE).all(dim=1, keepdim=True)
    reference = unused.amin(others) & (mask == 0).amin(others).to(unused.device)
    return reference.long().cumprod(0).sum()
