"""Mochi: joint attention, the video first and then its text, without padding; the text is a sink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...layout import Layout, video_first
from ...reasons import Request
from .video_model import Inputs, VideoModel


@dataclass(frozen=True)
class Mochi(VideoModel):
    """Mochi, whose frames of latent stand for 6 of the video each; scenes are counted in frames of latent."""

    frames_per_latent: ClassVar[int] = 1
    mask_rule: ClassVar[str] = "cogvideox"

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> Mochi | None:
        if unet.get("image_model") != "mochi_preview":
            return None
        heads, spatial = unet["num_heads"], unet["patch_size"]
        return cls("Mochi", (1, spatial, spatial), heads, unet["hidden_size_x"] // heads, unet.get("depth"))

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        return video_first(self.grid(inputs.latent), request.q_tokens, text_behind=True)
