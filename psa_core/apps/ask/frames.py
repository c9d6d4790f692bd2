"""The frames of a video file, or of a folder of pictures, spread evenly over all of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...settings.errors import ConfigError

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Of a folder, which says nothing of time.
_FOLDERS_RATE = 2.0


class Frames(NamedTuple):
    """Frames of a video.

    Attributes:
        pixels: bytes ``[frames, height, width, 3]``.
        rate: frames a second, of these.
    """

    pixels: np.ndarray
    rate: float


def read_frames(path: Path, most: int) -> Frames:
    """So many frames at most.

    Raises:
        ConfigError: there is no video there.
    """
    if path.is_dir():
        return _of_folder(path, most)
    if not path.is_file():
        raise ConfigError("video", str(path), "there is no such file or folder")
    return _of_file(path, most)


def _of_folder(folder: Path, most: int) -> Frames:
    from PIL import Image

    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
    if not files:
        raise ConfigError("video", str(folder), "must hold pictures: " + ", ".join(_PICTURES))
    chosen = [files[i] for i in _spread(len(files), most)]
    try:
        pictures = [Image.open(file).convert("RGB") for file in chosen]
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError("video", str(folder), f"holds a picture that cannot be read: {error}") from None
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        raise ConfigError("video", str(folder), "must hold pictures of one size")
    return Frames(np.stack([np.asarray(picture) for picture in pictures]), _FOLDERS_RATE)


def _of_file(file: Path, most: int) -> Frames:
    import imageio_ffmpeg

    try:
        count, seconds = imageio_ffmpeg.count_frames_and_secs(str(file))
        reader = imageio_ffmpeg.read_frames(str(file), output_params=["-fps_mode", "passthrough"])
        width, height = next(reader)["size"]
        wanted = set(_spread(count, most))
        chosen = [frame for index, frame in enumerate(reader) if index in wanted]
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError("video", str(file), f"cannot be read as a video: {reason}") from None
    if not chosen:
        raise ConfigError("video", str(file), "has no frame")
    pixels = np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in chosen])
    return Frames(pixels, len(chosen) / seconds if seconds else _FOLDERS_RATE)


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the first ``count`` numbers, evenly apart."""
    chosen = min(count, most)
    return [(2 * i + 1) * count // (2 * chosen) for i in range(chosen)]
