"""One video from a pipeline."""

from __future__ import annotations

import inspect
import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from ...hosts.diffusers import patch
from ...report.report import Report
from .picture import read_picture
from .progress import density_on_bar
from .video_settings import GenerateSettings


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


def sample(pipeline: Any, settings: GenerateSettings, prompt: str, **reporting: bool) -> Made:
    """Make the video of a prompt with the size, seed and attention of the settings.

    Whatever the pipeline raises is raised, and the pipeline can be used again.

    Args:
        pipeline: of :func:`~psa_core.apps.generate.pipeline.load_pipeline`.
        reporting: ``keep_levels`` and ``measure_errors`` of :func:`~psa_core.hosts.diffusers.patch`.
    """
    call = _call(pipeline, settings, prompt)
    try:
        # Anew for each prompt, so that one that failed leaves no count behind.
        with _attention(pipeline, settings, reporting) as handle, density_on_bar(pipeline, handle):
            start = time.perf_counter()
            frames = pipeline(**call).frames[0]
            seconds = time.perf_counter() - start
    except Exception:
        # Offloading is put in order at the end of a run, which this one did not reach.
        pipeline.maybe_free_model_hooks()
        raise
    return Made(frames, handle.merged_report() if handle is not None else None, seconds)


def _call(pipeline: Any, settings: GenerateSettings, prompt: str) -> dict[str, Any]:
    """The arguments of a pipeline for a video, as far as it has them."""
    sizes = {"width": settings.width, "height": settings.height, "num_frames": settings.frames}
    wanted = {
        "prompt": prompt,
        "negative_prompt": settings.negative_prompt,
        **{name: size for name, size in sizes.items() if size},
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        "output_type": "np",
        # On the CPU, so that every machine has the same noise.
        "generator": torch.Generator().manual_seed(settings.seed),
    }
    if settings.guidance_2 is not None:
        wanted["guidance_scale_2"] = settings.guidance_2
    if settings.image is not None:
        wanted["image"] = read_picture(settings.image, settings.width, settings.height)
    known = getattr(pipeline, "input_names", None) or inspect.signature(pipeline.__call__).parameters
    if "guidance_scale" not in known and getattr(pipeline, "guider", None) is not None:
        # HunyuanVideo 1.5 has the scale elsewhere.
        pipeline.guider = pipeline.guider.new(guidance_scale=settings.guidance)
    return {name: value for name, value in wanted.items() if name in known}


def _attention(pipeline: Any, settings: GenerateSettings, reporting: dict[str, Any]) -> Any:
    if settings.config.type == "dense":
        return nullcontext()
    return patch(pipeline, settings.config, backend=settings.backend, **reporting)
