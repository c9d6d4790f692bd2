"""Which model a MODEL is, read off what is loaded rather than off a file's name: a file a family."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ....settings.presets import bundled_dir
from . import any_model
from .any_model import AnyModel
from .cogvideox import CogVideoX
from .video_model import WITHIN_PROMPT, Inputs, VideoModel

__all__ = [
    "OFF", "UNKNOWN_MODELS", "WITHIN_PROMPT", "AnyModel", "CogVideoX", "Inputs", "VideoModel", "model_of", "presets_of",
    "recognise",
]  # fmt: skip


def _kinds(of: type[VideoModel]) -> Iterator[type[VideoModel]]:
    for kind in of.__subclasses__():
        yield kind
        yield from _kinds(kind)


for _file in iter_modules(__path__):
    import_module(f".{_file.name}", __name__)
# All that the files beside this one define.
FAMILIES = tuple(_kinds(VideoModel))

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
        return known.before() if known is not None and known.of_first_release else None
    if known is None:
        return AnyModel.of(base_model, images)
    return known if known.of_first_release else dataclasses.replace(known, images=images)


def presets_of(model: VideoModel) -> str:
    """The model in preset files whose presets it has: its family, or any model where that has no file."""
    return model.family if (bundled_dir() / f"{model.family}.yaml").is_file() else any_model.FAMILY
