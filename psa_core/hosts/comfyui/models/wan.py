"""Wan 2.1 and 2.2: the video alone in self-attention, text and CLIP image in calls of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....settings.sizes import Grid
from ...reasons import Request
from .video_model import Inputs, Layout, VideoModel


@dataclass(frozen=True)
class Wan(VideoModel):
    """Wan 2.2 A14B's text-to-video experts have exactly Wan 2.1 14B's layers and count as that."""

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> Wan | None:
        """The model of a ``unet_config``; None for another family's."""
        if unet.get("image_model") != "wan2.1":
            return None
        heads, dim = unet["num_heads"], unet["dim"]
        variant = unet.get("model_type") or ""
        return cls(_family(unet), tuple(unet["patch_size"]), heads, dim // heads, unet.get("num_layers"), variant)

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        # The model's own word comes first: it knows of frames that were added to the latent.
        sizes = options.get("grid_sizes")
        if sizes is None:
            return Layout(self.grid(inputs.latent))
        return Layout((int(sizes[0]), int(sizes[1]), int(sizes[2])))

    def other(self, inputs: Inputs, request: Request, layout: Layout) -> str:
        is_pose = self.variant == "animate2" and layout.grid is not None and _is_pose(request, layout.grid)
        return "attention with the pose video" if is_pose else ""


def _family(unet: dict[str, Any]) -> str:
    if unet.get("out_dim") == 48:
        return "Wan2.2_5B"
    # Wan 2.1 sees its first frame through CLIP as well (img_emb, hence type i2v); 2.2 through latent channels only.
    image_channels = unet.get("in_dim") == 36 and unet.get("model_type") == "t2v"
    if image_channels or unet.get("model_type") in ("camera_2.2", "s2v", "animate"):
        return "Wan2.2_A14B"
    return "Wan2.1_14b" if unet["dim"] >= 5120 else "Wan2.1_1.3b"


def _is_pose(request: Request, grid: Grid) -> bool:
    """Whether a call of Wan Animate 2 has to do with its pose video.

    That video has a branch of its own, without the reference frame. Then each frame of the clip looks at the whole
    clip, and all but the first at their frame of the pose as well.
    """
    frame, clip = grid[1] * grid[2], math.prod(grid)
    branch = request.q_tokens == request.k_tokens == clip - frame
    return branch or (request.q_tokens == frame and request.k_tokens in (clip, clip + frame) and grid[0] > 1)
