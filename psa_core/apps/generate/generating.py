"""A run from start to end: one video a prompt."""

from __future__ import annotations

import logging
from typing import Any

from ...settings.presets import config_to_schema
from .errors import FailedPromptsError
from .files import make_output, next_number, settings_document, versions, write_document, write_video
from .pipeline import first_line, load_pipeline
from .sample import Made, sample
from .video_settings import GenerateSettings

log = logging.getLogger(__name__)


def run_generate(settings: GenerateSettings) -> str:
    """Make a video of every prompt and write each, with its settings beside it, as soon as it is there.

    A prompt that fails is logged, and the others go on.

    Returns:
        One line for people: how many videos there are.

    Raises:
        ConfigError, BackendError: something that the user can set right; no prompt has run.
        FailedPromptsError: the same line, when prompts have failed.
    """
    make_output(settings.output)
    pipeline = load_pipeline(settings)
    count, first = len(settings.prompts), next_number(settings.output)
    failed: list[str] = []
    for index, prompt in enumerate(settings.prompts):
        pipeline.set_progress_bar_config(desc=f"{index + 1}/{count}")
        try:
            print(_make(pipeline, settings, prompt, first + index), flush=True)
        except Exception as error:
            failed.append(f"{index + 1} ({first_line(error)})")
            log.warning("prompt %d failed: %s", index + 1, first_line(error))
            log.debug("prompt %d", index + 1, exc_info=True)
    line = f"{count - len(failed)} of {count} video{'s' * (count > 1)}"
    if failed:
        raise FailedPromptsError(f"{line}; failed: {', '.join(failed)}")
    return f"{line} in {settings.output}"


def _make(pipeline: Any, settings: GenerateSettings, prompt: str, number: int) -> str:
    """Make and write one video; a line for people."""
    made = sample(pipeline, settings, prompt)
    file = write_video(settings.output, number, prompt, made.frames, settings.facts.frames_per_second)
    write_document(file, _document(settings, prompt, made))
    return f"{file.name} | {made.line} | {made.seconds:.1f} s"


def _document(settings: GenerateSettings, prompt: str, made: Made) -> dict[str, Any]:
    return {
        "prompt": prompt,
        **settings_document(settings),
        "seed": settings.seed,
        "preset": settings.preset,
        "config": config_to_schema(settings.config),
        "versions": versions(),
        "seconds": made.seconds,
        "report_line": made.line,
        "report": None if made.report is None else made.report.as_dict(),
    }
