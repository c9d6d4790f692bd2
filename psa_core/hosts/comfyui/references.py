"""Reference frames: pictures that a model looks at, in front of the clip in the latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..references import leading_frames
from .models import VideoModel


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
        int(leading_frames(frames, mask, empty))
        for cond in (cond for conds_of_one in conds.values() for cond in conds_of_one or ())
        for frames, mask in zip(cond.get("vace_frames") or (), cond.get("vace_mask") or (), strict=False)
    }
    return counts.pop() if len(counts) == 1 else None if counts else 0
