"""The files of a run: their folder, names that are free, videos, and what they were made with."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from ... import __version__
from ...report import videos
from ...settings.errors import ConfigError
from ...settings.files import locked, write_json
from ...settings.preset_schema import config_to_schema
from .same_settings import check_same
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

    Raises:
        WriteError: it cannot be written.
    """
    with locked(folder):
        while True:
            file = folder / f"{number:02d}-{slug(prompt)}.mp4"
            if not file.exists() and not file.with_suffix(".json").exists():
                break
            number += 1
        videos.write_video(file, frames, frames_per_second)
    return file


def prompts_to_make(settings: GenerateSettings) -> list[int]:
    """Places of the prompts of which the output folder has no video.

    Raises:
        ConfigError: it has one that was made with other settings.
    """
    held = Counter(_prompts_there(settings))
    missing = []
    for index, prompt in enumerate(settings.prompts):
        if held[prompt]:
            held[prompt] -= 1
        else:
            missing.append(index)
    return missing


def _prompts_there(settings: GenerateSettings) -> list[str]:
    """The prompts of the videos in the output folder."""
    prompts = []
    for file in sorted(settings.output.glob("*.json")):
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(document, dict) and {"prompt", "config"} <= document.keys() and file.with_suffix(".mp4").exists():
            check_same(settings.output, file.name, document, run_document(settings))
            prompts.append(str(document["prompt"]))
    return prompts


def settings_document(settings: GenerateSettings) -> dict[str, Any]:
    """Settings that do not differ between the videos of a run, for JSON."""
    same = ("model", "path", "negative_prompt", "width", "height", "frames", "steps", "guidance", "guidance_2")
    return {
        **{name: getattr(settings, name) for name in same},
        "flow_shift": settings.flow_shift,
        "frames_per_second": settings.facts.frames_per_second,
        "image": None if settings.image is None else str(settings.image),
        "lora": _loras(settings),
        "cpu_offload": settings.cpu_offload,
        "backend": settings.backend,
    }


def _loras(settings: GenerateSettings) -> str | list[str] | None:
    """As they were given: one alone as a text, as documents always had it."""
    given = [lora.text for lora in settings.loras]
    return given[0] if len(given) == 1 else given or None


def run_document(settings: GenerateSettings) -> dict[str, Any]:
    """All that the videos of a run share, for JSON."""
    return {
        **settings_document(settings),
        "seed": settings.seed,
        "preset": settings.preset,
        "config": config_to_schema(settings.config),
    }


def versions() -> dict[str, str]:
    """What videos were made with."""
    return {"psa": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__}


def write_document(video: Path, document: dict[str, Any]) -> None:
    """Write what a video was made with beside it, as JSON."""
    write_json(video.with_suffix(".json"), document)
