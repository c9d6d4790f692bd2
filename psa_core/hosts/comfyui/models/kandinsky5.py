"""Kandinsky 5: the video alone in self-attention, text in calls of its own.

The text's blocks come first and say no ``block_type``. Image to video replaces the first frame, within the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .video_model import VideoModel


@dataclass(frozen=True)
class Kandinsky5(VideoModel):
    """Kandinsky 5: Lite has heads of 64, Pro of 128."""

    says_block_type: ClassVar[bool] = True

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> Kandinsky5 | None:
        if unet.get("image_model") != "kandinsky5":
            return None
        head_dim = sum(unet.get("axes_dims", (16, 24, 24)))
        patch_size = tuple(unet.get("patch_size", (1, 2, 2)))
        return cls("Kandinsky5", patch_size, unet["model_dim"] // head_dim, head_dim, unet.get("num_visual_blocks"))
