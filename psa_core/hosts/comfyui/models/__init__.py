"""Which model a MODEL is, read off what is loaded rather than off a file's name: a file a family."""

from __future__ import annotations

from typing import Any

from .any_model import AnyModel
from .cogvideox import CogVideoX
from .video_model import Inputs, Layout, VideoModel
from .wan import Wan

__all__ = ["OFF", "UNKNOWN_MODELS", "AnyModel", "CogVideoX", "Inputs", "Layout", "VideoModel", "model_of", "recognise"]

FAMILIES = (Wan, CogVideoX)

# What to do with models that are none of these: what makes videos runs sparse, or everything, or nothing.
VIDEO, ALL, OFF = "video", "all", "off"
UNKNOWN_MODELS = (VIDEO, ALL, OFF)


def recognise(base_model: Any) -> VideoModel | None:
    """The video model behind a ComfyUI ``BaseModel``; None for one of a family that the pack does not know."""
    unet = base_model.model_config.unet_config
    return next(filter(None, (family.recognise(unet) for family in FAMILIES)), None)


def model_of(base_model: Any, unknown_models: str) -> VideoModel | None:
    """The model as the patch takes it; None leaves it dense.

    Args:
        base_model: ComfyUI's ``BaseModel``.
        unknown_models: one of ``UNKNOWN_MODELS``.
    """
    known = recognise(base_model)
    if known is not None or unknown_models == OFF:
        return known
    return AnyModel.of(base_model, images=unknown_models == ALL)
