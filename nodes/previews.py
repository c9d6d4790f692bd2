"""A picture on the node that made it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image


def preview(picture: Image.Image, node: type[io.ComfyNode]) -> Any:
    """What makes ComfyUI show a picture on a node."""
    return ui.PreviewImage(as_image(picture), cls=node)


def as_image(picture: Image.Image) -> torch.Tensor:
    """A picture as ComfyUI's IMAGE, ``[1, height, width, 3]`` from 0 to 1."""
    return torch.from_numpy(np.array(picture.convert("RGB")))[None].float() / 255
