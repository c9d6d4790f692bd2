"""Any other model that goes through ComfyUI's attention hook: its tokens are taken as they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...layout import Layout
from ...reasons import Request
from .video_model import Inputs, VideoModel

FAMILY = "Any"


@dataclass(frozen=True)
class AnyModel(VideoModel):
    """A model of which nothing is known but what its latents are.

    Attributes:
        audio: whether it makes sound.
    """

    audio: bool = False

    grid_optional: ClassVar[bool] = True

    @classmethod
    def of(cls, base_model: Any, images: bool) -> AnyModel:
        """The model behind a ComfyUI ``BaseModel``; ``images``: as in :class:`VideoModel`."""
        latent_format = getattr(base_model, "latent_format", None)
        one_dimension = getattr(latent_format, "latent_dimensions", 2) == 1
        audio = one_dimension or "audio" in type(latent_format).__name__.lower()
        return cls(FAMILY, (1, 1, 1), images=images, audio=audio)

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        return Layout(None)

    def other(self, inputs: Inputs, request: Request, layout: Layout, options: Mapping[str, Any]) -> str:
        return "audio" if self.audio else super().other(inputs, request, layout, options)
