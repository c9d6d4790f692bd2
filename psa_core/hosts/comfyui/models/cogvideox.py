"""CogVideoX 1.0 and 1.5: one joint attention a block, text first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ....settings.sinks import text_in_front
from ...layout import Layout
from ...reasons import Request
from .video_model import Inputs, VideoModel


@dataclass(frozen=True)
class CogVideoX(VideoModel):
    """CogVideoX 1.0, 1.5 and VOID: joint attention is all the attention that they have."""

    of_first_release: ClassVar[bool] = True
    mask_rule: ClassVar[str] = "cogvideox"

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> CogVideoX | None:
        if unet.get("image_model") != "cogvideox":
            return None
        spatial, temporal = unet.get("patch_size", 2), unet.get("patch_size_t") or 1
        heads = unet["num_attention_heads"]
        family = "CogVideo1.5_5b" if unet.get("patch_size_t") else "CogVideo_5b" if heads >= 48 else "CogVideo_2b"
        size = (temporal, spatial, spatial)
        return cls(family, size, heads, unet["attention_head_dim"], unet.get("num_layers"))

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        return Layout(self.grid(inputs.latent), text_in_front(inputs.text_tokens))

    def prompts(self, inputs: Inputs) -> tuple[int, ...]:
        return ()
