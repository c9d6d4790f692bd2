"""A run from start to end: one video a prompt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from .errors import FailedPromptsError
from .files import make_output, next_number, prompts_to_make, run_document, versions, write_document, write_video
from .gpus import is_first, of_first
from .pipeline import check_model, first_line, load_pipeline
from .sample import Made, sample
from .video_settings import GenerateSettings

log = logging.getLogger(__name__)


def check_run(settings: GenerateSettings) -> None:
    """See what can be seen of a run before it: whether it may write where it is to, and whether its model can run here.

    Raises:
        ConfigError, BackendError: something that the user can set right.
    """
    make_output(settings.output)
    prompts_to_make(settings)
    check_model(settings)


def run_generate(settings: GenerateSettings) -> str:
    """Make a video of every prompt and write each, with its settings beside it, as soon as it is there.

    A prompt that fails is logged, and the others go on. Videos that an earlier run with these settings has left in the
    folder are not made again.

    Returns:
        One line for people: how many videos there are.

    Raises:
        ConfigError, BackendError: something that the user can set right; no prompt has run.
        FailedPromptsError: the same line, when prompts have failed.
    """
    if is_first():
        make_output(settings.output)
    count, missing = len(settings.prompts), of_first(prompts_to_make(settings) if is_first() else [])
    videos = f"{count} video{'s' * (count > 1)}"
    if len(missing) < count:
        _say(f"{count - len(missing)} of {videos} were there")
    failed = _make_all(settings, missing) if missing else []
    line = f"{count - len(failed)} of {videos}"
    if failed:
        raise FailedPromptsError(f"{line}; failed: {', '.join(failed)}")
    return f"{line} in {settings.output}" if is_first() else ""


def _make_all(settings: GenerateSettings, places: Sequence[int]) -> list[str]:
    """Make the videos of the prompts at some places; which have failed, and why."""
    pipeline = load_pipeline(settings)
    first = next_number(settings.output)
    failed: list[str] = []
    for number, index in enumerate(places, first):
        pipeline.set_progress_bar_config(desc=f"{index + 1}/{len(settings.prompts)}", disable=not is_first())
        try:
            _make(pipeline, settings, settings.prompts[index], number)
        except Exception as error:
            if settings.gpus > 1:
                # The other processes would wait for this one; torchrun ends them with it.
                raise
            failed.append(f"{index + 1} ({first_line(error)})")
            log.warning("prompt %d failed: %s", index + 1, first_line(error))
            log.debug("prompt %d", index + 1, exc_info=True)
    return failed


def _make(pipeline: Any, settings: GenerateSettings, prompt: str, number: int) -> None:
    """Make and write one video, and say a line of it."""
    made = sample(pipeline, settings, prompt)
    if not is_first():
        return
    file = write_video(settings.output, number, prompt, made.frames, settings.facts.frames_per_second)
    write_document(file, _document(settings, prompt, made))
    _say(" | ".join([file.name, made.line, f"{made.seconds:.1f} s", *_in_both(settings)]))


def _say(line: str) -> None:
    if is_first():
        print(line, flush=True)


def _in_both(settings: GenerateSettings) -> list[str]:
    """What is said of LoRAs that both experts of a model have taken."""
    both = [lora.said for lora in settings.loras if not lora.expert] if settings.experts == 2 else []
    return [f"LoRA {', '.join(both)} in both experts"] if both else []


def _document(settings: GenerateSettings, prompt: str, made: Made) -> dict[str, Any]:
    return {
        "prompt": prompt,
        **run_document(settings),
        "versions": versions(),
        "seconds": made.seconds,
        "report_line": made.line,
        "report": None if made.report is None else made.report.as_dict(),
    }
