"""LTX-Video, and LTX-2, 2.3 and 2.5, which make sound beside the video.

| stream | tokens of self-attention | told by |
|---|---|---|
| video | video, guides: a sink, or ordinary tokens if they are many | LTX-2: heads of 128 |
| sound of LTX-2, and between the two | all dense | heads of 64 |

Guides are frames appended to the latent. A guide of strength 1 is part of the one call. At other strengths the video
and the guides look at all in a call each, with weights on keys of guides. ComfyUI wants both in full precision, and
sparse attention has no weights of single keys: they stay dense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...layout import Layout, video_first
from ...reasons import Request
from .video_model import Inputs, VideoModel


@dataclass(frozen=True)
class LTX(VideoModel):
    """LTX-Video and LTX-2: every pixel of the latent is a token, and a frame of it stands for 8 of the video."""

    frames_per_latent: ClassVar[int] = 8

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> LTX | None:
        if unet.get("image_model") not in _FAMILIES:
            return None
        family, head_dim = _FAMILIES[unet["image_model"]]
        sizes = unet.get("num_attention_heads", 32), unet.get("attention_head_dim", head_dim)
        return cls(family, (1, 1, 1), *sizes, unet.get("num_layers"))

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        grid = self.grid(inputs.latent)
        guides = _guide_tokens(inputs)
        if grid is None or not guides:
            return Layout(grid)
        frames, height, width = grid
        return video_first((frames - math.ceil(guides / (height * width)), height, width), request.q_tokens)

    def layer(self, calls: int, options: Mapping[str, Any], inputs: Inputs) -> int:
        # Spatio-temporal guidance runs the model once more without these blocks' self-attention.
        for left_out in sorted(options.get("stg_self_attn_blocks", ())):
            calls += left_out <= calls
        return super().layer(calls, options, inputs)

    def other(self, inputs: Inputs, request: Request, layout: Layout, options: Mapping[str, Any]) -> str:
        if request.head_dim != self.head_dim:
            return "audio"
        if _guide_tokens(inputs) and layout.grid is not None:
            is_whole = request.k_tokens >= math.prod(layout.grid) and request.k_tokens not in self.prompts(inputs)
            if request.q_tokens != request.k_tokens and is_whole:
                return WEIGHTED_GUIDES
        return super().other(inputs, request, layout, options)


# What to change is in it.
WEIGHTED_GUIDES = "weighted guides (those of strength 1 without a mask are not)"
_FAMILIES = {"ltxv": ("LTX-Video", 64), "ltxav": ("LTX-2", 128)}


def _guide_tokens(inputs: Inputs) -> int:
    """Of guides as they lie in the latent; some may be left out of attention."""
    places = inputs.conditions.get("keyframe_idxs")
    return 0 if places is None else int(places.shape[2])
