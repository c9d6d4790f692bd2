"""What several nodes need: the pack's sockets, pictures on nodes, and a word on packages that are not there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

Preset = io.Custom("PSA_PRESET")
Schedule = io.Custom("PSA_SCHEDULE")
Mask = io.Custom("PSA_MASK")

_PACK = Path(__file__).resolve().parents[1]


def preview(picture: Image.Image, node: type[io.ComfyNode]) -> Any:
    """What makes ComfyUI show a picture on the node that made it."""
    return ui.PreviewImage(as_image(picture), cls=node)


def as_image(picture: Image.Image) -> torch.Tensor:
    """A picture as ComfyUI's IMAGE, ``[1, height, width, 3]`` from 0 to 1."""
    return torch.from_numpy(np.array(picture.convert("RGB")))[None].float() / 255


def require(*modules: str) -> None:
    """See that modules of packages that ComfyUI does not bring can be imported.

    Raises:
        RuntimeError: some cannot; the message names them and the command that installs them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise RuntimeError(
            f"{' and '.join(missing)} cannot be imported: run `pip install -r requirements.txt` with ComfyUI's Python "
            f"in {_PACK}, and restart ComfyUI"
        )
