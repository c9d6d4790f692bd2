"""A run from start to end: one video a prompt."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch

from .. import __version__
from ..hosts.diffusers import patch
from ..output import make_output
from ..presets import config_to_schema
from ..report import Report
from .errors import FailedPromptsError
from .files import next_number, write_document, write_video
from .pipeline import first_line, load_pipeline
from .settings import GenerateSettings

log = logging.getLogger(__name__)


class Made(NamedTuple):
    """What came of one prompt.

    Attributes:
        frames: ``[frames, height, width, 3]``, from 0 to 1.
        report: what the attention did; None where it was left as it is.
        seconds: that the pipeline took, from text to pixels.
    """

    frames: np.ndarray
    report: Report | None
    seconds: float

    @property
    def line(self) -> str:
        """What the attention did, for people."""
        return self.report.line() if self.report is not None else "attention as it is"


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
            # Offloading is put in order at the end of a run, which this one did not reach.
            pipeline.maybe_free_model_hooks()
    line = f"{count - len(failed)} of {count} video{'s' * (count > 1)}"
    if failed:
        raise FailedPromptsError(f"{line}; failed: {', '.join(failed)}")
    return f"{line} in {settings.output}"


def _make(pipeline: Any, settings: GenerateSettings, prompt: str, number: int) -> str:
    """Make and write one video; a line for people."""
    made = _sample(pipeline, settings, prompt)
    file = write_video(settings.output, number, prompt, made.frames, settings.facts.frames_per_second)
    write_document(file, _document(settings, prompt, made))
    return f"{file.name} | {made.line} | {made.seconds:.1f} s"


def _sample(pipeline: Any, settings: GenerateSettings, prompt: str) -> Made:
    second = {} if settings.guidance_2 is None else {"guidance_scale_2": settings.guidance_2}
    dense = settings.config.type == "dense"
    # Anew for each prompt, so that one that failed leaves no count behind.
    with nullcontext() if dense else patch(pipeline, settings.config, backend=settings.backend) as handle:
        start = time.perf_counter()
        frames = pipeline(
            prompt=prompt,
            negative_prompt=settings.negative_prompt,
            width=settings.width,
            height=settings.height,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            output_type="np",
            # On the CPU, so that every machine has the same noise.
            generator=torch.Generator().manual_seed(settings.seed),
            **second,
        ).frames[0]
    return Made(frames, handle.report if handle is not None else None, time.perf_counter() - start)


def _document(settings: GenerateSettings, prompt: str, made: Made) -> dict[str, Any]:
    same = ("model", "path", "negative_prompt", "width", "height", "frames", "steps", "guidance", "guidance_2")
    return {
        "prompt": prompt,
        **{name: getattr(settings, name) for name in same},
        "flow_shift": settings.flow_shift,
        "frames_per_second": settings.facts.frames_per_second,
        "seed": settings.seed,
        "lora": None if settings.lora is None else str(settings.lora),
        "cpu_offload": settings.cpu_offload,
        "preset": settings.preset,
        "backend": settings.backend,
        "config": config_to_schema(settings.config),
        "versions": {"psa": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        "seconds": made.seconds,
        "report_line": made.line,
        "report": None if made.report is None else made.report.as_dict(),
    }
