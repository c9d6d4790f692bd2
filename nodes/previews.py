"""A picture on the node that made it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image


def preview(picture: Image.Image, node: type[io.ComfyNode]) -> Any:
    """What makes ComfyUI show a picture on a node."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255
    return ui.PreviewImage(pixels[None], cls=node)
