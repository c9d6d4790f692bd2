"""The files of a run: their folder, names that are free, videos, and what they were made with."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from ... import __version__
from ...report import videos
from ...settings.errors import ConfigError
from .video_settings import GenerateSettings

_SLUG_LENGTH = 40


def make_output(folder: Path) -> None:
    """Make the output folder and see that files can be written there.

    Raises:
        ConfigError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError("--output", str(folder), f"cannot be written: {error.strerror}") from None


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
    videos.write_video(file, frames, frames_per_second)
    return file


def settings_document(settings: GenerateSettings) -> dict[str, Any]:
    """Settings that do not differ between the videos of a run, for JSON."""
    same = ("model", "path", "negative_prompt", "width", "height", "frames", "steps", "guidance", "guidance_2")
    return {
        **{name: getattr(settings, name) for name in same},
        "flow_shift": settings.flow_shift,
        "frames_per_second": settings.facts.frames_per_second,
        "lora": None if settings.lora is None else str(settings.lora),
        "cpu_offload": settings.cpu_offload,
        "backend": settings.backend,
    }


def versions() -> dict[str, str]:
    """What videos were made with."""
    return {"psa": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__}


def write_document(video: Path, document: dict[str, Any]) -> None:
    """Write what a video was made with beside it, as JSON."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    video.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
