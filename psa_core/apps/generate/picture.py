"""The picture that a video begins with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...settings.errors import ConfigError


def size_like(image: Path, width: int, height: int, step: int) -> tuple[int, int]:
    """A size of about as many pixels as width times height, with the picture's sides to one another.

    Args:
        step: sides are multiples of it.

    Raises:
        ConfigError: the picture cannot be read.
    """
    own_width, own_height = _open(image).size
    scale = math.sqrt(width * height / (own_width * own_height))
    across, down = (max(2, round(side * scale / step)) * step for side in (own_width, own_height))
    return across, down


def read_picture(image: Path, width: int, height: int) -> Any:
    """The picture in a size, cut to it from the middle; in its own where that is 0.

    Raises:
        ConfigError: it cannot be read.
    """
    from PIL import ImageOps

    picture = _open(image).convert("RGB")
    return ImageOps.fit(picture, (width, height)) if width and height else picture


def _open(image: Path) -> Any:
    from PIL import Image, ImageOps

    try:
        # Cameras write down how they were held.
        return ImageOps.exif_transpose(Image.open(image))
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError("--image", str(image), f"cannot be read as a picture: {error}") from None
