"""The files of a run: names that are free, videos, and what they were made with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.utils import export_to_video

_SLUG_LENGTH = 40


def next_number(folder: Path) -> int:
    """One more than the highest number that a file's name in the folder begins with."""
    numbers = [re.match(r"(\d+)-", file.name) for file in folder.iterdir()]
    return 1 + max((int(number[1]) for number in numbers if number), default=0)


def slug(prompt: str) -> str:
    """The beginning of a prompt as part of a file's name: letters and digits of any script, and hyphens."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    return words[:_SLUG_LENGTH].strip("-") or "video"


def write_video(folder: Path, number: int, prompt: str, frames: np.ndarray, frames_per_second: int) -> Path:
    """Write frames ``[frames, height, width, 3]``, from 0 to 1, as ``<number>-<slug>.mp4``; never over another file.

    Returns:
        The file; its number is higher when another run has taken the name.
    """
    while True:
        file = folder / f"{number:02d}-{slug(prompt)}.mp4"
        try:
            file.touch(exist_ok=False)
            break
        except FileExistsError:
            number += 1
    try:
        export_to_video(list(frames), str(file), fps=frames_per_second, quality=8)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file


def write_document(video: Path, document: dict[str, Any]) -> None:
    """Write what a video was made with beside it, as JSON."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    video.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
