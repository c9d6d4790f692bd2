"""The demo's video files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffusers.utils import export_to_video
from PIL import Image, ImageDraw, ImageFont

_FRAMES_PER_SECOND = 12
# Both in pixels; sides of an H.264 video are multiples of 16.
_HEADER, _GAP = 32, 16


def write_video(file: Path, frames: np.ndarray) -> None:
    """Write ``[frames, height, width, 3]``, from 0 to 1, as an MP4."""
    export_to_video(list(frames), str(file), fps=_FRAMES_PER_SECOND, quality=8)


def side_by_side(left: np.ndarray, right: np.ndarray, left_title: str, right_title: str) -> np.ndarray:
    """Two videos ``[frames, height, width, 3]`` next to each other, each under its title."""
    frames, height, width, colours = left.shape
    canvas = np.ones((frames, height + _HEADER, 2 * width + _GAP, colours), dtype=left.dtype)
    canvas[:, :_HEADER] = _header(width, left_title, right_title)
    canvas[:, _HEADER:, :width] = left
    canvas[:, _HEADER:, width + _GAP :] = right
    return canvas


def _header(width: int, left_title: str, right_title: str) -> np.ndarray:
    image = Image.new("RGB", (2 * width + _GAP, _HEADER), "white")
    font = ImageFont.load_default(size=16)
    for start, title in ((0, left_title), (width + _GAP, right_title)):
        ImageDraw.Draw(image).text((start + width // 2, _HEADER // 2), title, "black", font, anchor="mm")
    return np.asarray(image) / 255
