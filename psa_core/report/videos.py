"""Video files, and several videos in one. Needs Pillow and imageio with its ffmpeg, which the core does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_QUALITY = 8
_MOST_COLUMNS = 3
# In pixels; sides of an H.264 video are multiples of 16.
_STEP, _GAP, _LEAST_HEADER = 16, 16, 32
# A header is about this share of the height of its video.
_HEADER_SHARE = 1 / 15
_LEAST_TEXT, _MARGIN = 9, 4


def write_video(file: Path, frames: Iterable[np.ndarray], frames_per_second: int) -> None:
    """Write frames ``[height, width, 3]``, as bytes or from 0 to 1, as an MP4; no file is left when that fails."""
    try:
        writer: Any = imageio.get_writer(str(file), fps=frames_per_second, quality=_QUALITY)
        # By itself it stays open after an error, and ffmpeg goes on.
        with closing(writer):
            for frame in frames:
                writer.append_data(as_bytes(frame))
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 1 as bytes; bytes stay as they are."""
    return frames if frames.dtype == np.uint8 else (frames.clip(0, 1) * 255).round().astype(np.uint8)


def side_by_side(videos: Sequence[np.ndarray], titles: Sequence[str]) -> Iterator[np.ndarray]:
    """Frames of bytes that show several videos, each under its title, three in a row at most.

    Args:
        videos: ``[frames, height, width, 3]`` of one shape, as bytes or from 0 to 1.
        titles: one for each.
    """
    frames, height, width, colours = videos[0].shape
    rows = -(-len(videos) // _MOST_COLUMNS)
    columns = -(-len(videos) // rows)
    header = max(_LEAST_HEADER, round(height * _HEADER_SHARE / _STEP) * _STEP)
    cell = header + height
    size = rows * cell + (rows - 1) * _GAP, columns * width + (columns - 1) * _GAP
    canvas = np.full((*size, colours), 255, dtype=np.uint8)
    places = [((i // columns) * (cell + _GAP), (i % columns) * (width + _GAP)) for i in range(len(videos))]
    for (top, left), title in zip(places, titles, strict=True):
        canvas[top : top + header, left : left + width] = _header(width, header, title)
    for index in range(frames):
        for (top, left), video in zip(places, videos, strict=True):
            canvas[top + header : top + cell, left : left + width] = as_bytes(video[index])
        yield canvas.copy()


def _header(width: int, height: int, title: str) -> np.ndarray:
    """A title in the middle of ``[height, width, 3]``, smaller where it is too long."""
    sizes = range(height // 2, _LEAST_TEXT, -1)
    fitting = (font for font in map(ImageFont.load_default, sizes) if font.getlength(title) <= width - 2 * _MARGIN)
    font = next(fitting, None) or ImageFont.load_default(_LEAST_TEXT)
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).text((width / 2, height / 2), title, "#222222", font, anchor="mm")
    return np.asarray(image)
