"""HunyuanVideo, its image-to-video kin, SkyReels, and 1.5: joint attention, text first.

| model | tokens of self-attention | beside the video |
|---|---|---|
| HunyuanVideo | text, picture's tokens, reference, video | a sink |
| 1.5 | vision, glyphs, text, video | a sink |

Sparse-VideoGen and RadialAttention keep text exact in it, as keys and as queries.

Before that the text refines itself in calls that say no ``block_type``. Its blocks have double or single streams, each
kind numbered from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...layout import Layout, video_last
from ...reasons import Request
from .video_model import Inputs, VideoModel


@dataclass(frozen=True)
class HunyuanVideo(VideoModel):
    """HunyuanVideo and its kin, told from image models with the same blocks by patches that have frames.

    Attributes:
        double_blocks: of its layers those with two streams, which come first.
    """

    double_blocks: int = 0

    says_block_type: ClassVar[bool] = True
    mask_rule: ClassVar[str] = "cogvideox"

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> HunyuanVideo | None:
        if unet.get("image_model") != "hunyuan_video" or len(unet["patch_size"]) != 3:
            return None
        family = "HunyuanVideo1.5" if unet.get("vision_in_dim") else "HunyuanVideo"
        heads, double = unet["num_heads"], unet["depth"]
        sizes = tuple(unet["patch_size"]), heads, unet["hidden_size"] // heads
        return cls(family, *sizes, double + unet["depth_single_blocks"], double_blocks=double)

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        return video_last(self.grid(inputs.latent), request.q_tokens)

    def layer(self, calls: int, options: Mapping[str, Any], inputs: Inputs) -> int:
        before = self.double_blocks if options.get("block_type") == "single" else 0
        return before + super().layer(calls, options, inputs)
