"""Cosmos 1 and Cosmos-Predict2: the video alone in self-attention, text in calls of its own.

Anima shares Predict2's blocks and makes images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .video_model import VideoModel


@dataclass(frozen=True)
class CosmosPredict2(VideoModel):
    """Cosmos-Predict2 and Anima, whose autoencoder makes one frame of latent of 4 of the video."""

    _FAMILY: ClassVar[str] = "Cosmos_Predict2"
    _IMAGE_MODELS: ClassVar[tuple[str, ...]] = ("cosmos_predict2", "anima")

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> CosmosPredict2 | None:
        if unet.get("image_model") not in cls._IMAGE_MODELS:
            return None
        heads, spatial = unet["num_heads"], unet["patch_spatial"]
        patch_size = unet["patch_temporal"], spatial, spatial
        return cls(cls._FAMILY, patch_size, heads, unet["model_channels"] // heads, unet.get("num_blocks"))


@dataclass(frozen=True)
class Cosmos1(CosmosPredict2):
    """Cosmos 1, whose autoencoder makes one frame of latent of 8 of the video."""

    frames_per_latent: ClassVar[int] = 8
    _FAMILY: ClassVar[str] = "Cosmos1"
    _IMAGE_MODELS: ClassVar[tuple[str, ...]] = ("cosmos",)
