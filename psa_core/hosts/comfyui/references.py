"""Reference frames: pictures that a model looks at, in front of the clip in the latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .models import VideoModel

_CLOSE = 1e-2


def leading_references(model: VideoModel, conds: Mapping[str, Sequence[Any]], latent_format: Any) -> int | None:
    """How many latent frames of a sampler call come before the clip's own; None where its conditionings disagree.

    Args:
        model: the video model.
        conds: a guider's conditionings by name, as lists of dictionaries.
        latent_format: the model's.
    """
    if model.variant in ("animate", "animate2"):
        return 1
    if model.variant != "vace":
        return 0
    # As the model makes them empty, with what latents are before they are scaled.
    empty = latent_format.process_out(torch.zeros(1, latent_format.latent_channels, 1, 1, 1))
    counts = {
        _leading(frames, mask, empty)
        for cond in (cond for conds_of_one in conds.values() for cond in conds_of_one or ())
        for frames, mask in zip(cond.get("vace_frames") or (), cond.get("vace_mask") or (), strict=False)
    }
    return counts.pop() if len(counts) == 1 else None if counts else 0


def _leading(frames: torch.Tensor, mask: torch.Tensor, empty: torch.Tensor) -> int:
    """Of one VACE input.

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
    return int(reference.long().cumprod(0).sum())
