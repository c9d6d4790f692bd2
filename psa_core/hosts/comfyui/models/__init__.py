"""Which model a MODEL is, read off what is loaded rather than off a file's name: a file a family."""

from __future__ import annotations

import dataclasses
from typing import Any

from .any_model import AnyModel
from .cogvideox import CogVideoX
from .cosmos import Cosmos1, CosmosPredict2
from .hunyuan_video import HunyuanVideo
from .kandinsky5 import Kandinsky5
from .ltx import LTX
from .minimax_h3 import MiniMaxH3
from .mochi import Mochi
from .video_model import Inputs, VideoModel
from .wan import Wan

__all__ = ["OFF", "UNKNOWN_MODELS", "AnyModel", "CogVideoX", "Inputs", "VideoModel", "model_of", "recognise"]

# Those that the first release knew, and the others.
FIRST = (Wan, CogVideoX)
FAMILIES = (*FIRST, LTX, MiniMaxH3, HunyuanVideo, Kandinsky5, Cosmos1, CosmosPredict2, Mochi)

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
        unknown_models: one of ``UNKNOWN_MODELS``; ``"off"`` knows what the first release knew, and as it did.
    """
    known, images = recognise(base_model), unknown_models == ALL
    if unknown_models == OFF:
        return known.before() if known is not None and isinstance(known, FIRST) else None
    if known is None:
        return AnyModel.of(base_model, images)
    return known if isinstance(known, FIRST) else dataclasses.replace(known, images=images)
