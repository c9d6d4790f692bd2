"""Video files, and several videos in one. Needs Pillow and imageio's ffmpeg, which the core does not."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
from imageio_ffmpeg import count_frames_and_secs, get_ffmpeg_exe
from PIL import Image, ImageDraw, ImageFont

from ..settings.files import written_whole

# Any encoder of H.264 that ffmpeg has, and near to no loss: as libx264 says it, and as others do.
_CODEC = ("-c:v", "h264", "-crf", "10", "-q:v", "7", "-pix_fmt", "yuv420p")
_LONGEST_REASON = 300
_MOST_COLUMNS = 3
# In pixels; sides of an H.264 video are multiples of 16.
_STEP, _GAP, _LEAST_HEADER = 16, 16, 32
# A header is about this share of the height of its video.
_HEADER_SHARE = 1 / 15
_LEAST_TEXT, _MARGIN = 9, 4


def write_video(file: Path, frames: Iterable[np.ndarray], frames_per_second: int) -> None:
    """Write frames ``[height, width, 3]``, as bytes or from 0 to 1, with even sides, as an MP4, whole or not at all.

    Raises:
        WriteError: the file cannot be written; the message has ffmpeg's own reason.
        ValueError: there is no frame.
    """
    with written_whole(file) as draft:
        count = _encode(draft, iter(frames), frames_per_second)
        _check(draft, count)


def _encode(file: Path, frames: Iterator[np.ndarray], frames_per_second: int) -> int:
    """The number of frames.

    Raises:
        OSError: ffmpeg has failed.
    """
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs a frame")
    height, width, _ = first.shape
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frames_per_second), "-i", "-"]
    command = [get_ffmpeg_exe(), "-y", "-v", "error", *raw, *_CODEC, "-f", "mp4", str(file)]
    count = 0
    # A file: what nobody reads would fill a pipe up, and ffmpeg would wait.
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log) as ffmpeg,
    ):
        assert ffmpeg.stdin is not None
        try:
            for frame in chain([first], frames):
                # A pipe that is closed is told by the exit code, with the reason.
                with suppress(OSError):
                    ffmpeg.stdin.write(as_bytes(frame).tobytes())
                if ffmpeg.poll() is not None:
                    break
                count += 1
        except BaseException:
            ffmpeg.kill()
            raise
        finally:
            with suppress(OSError):
                ffmpeg.stdin.close()
        if ffmpeg.wait() != 0:
            log.seek(0)
            raise OSError(_reason(ffmpeg.returncode, log.read().decode(errors="replace")))
    return count


def _reason(exit_code: int, log: str) -> str:
    """Why ffmpeg has failed, in its own words where it has said any."""
    ended = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    # Without the addresses of ffmpeg's parts, which begin its lines.
    said = dict.fromkeys(re.sub(r"^(\[.*?\])*\s*", "", line) for line in log.splitlines())
    return "ffmpeg failed: " + textwrap.shorten("; ".join([ended, *filter(None, said)]), _LONGEST_REASON)


def _check(file: Path, count: int) -> None:
    """See that a video can be read, and has so many frames.

    Raises:
        OSError: it is not so.
    """
    try:
        found, _ = count_frames_and_secs(str(file))
    except RuntimeError:
        found = 0
    if found != count:
        raise OSError(f"ffmpeg has written {found} of {count} frames")


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
