"""One video from a pipeline, with what the demo compares."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch

from .settings import DemoSettings


class Video(NamedTuple):
    """A generated video.

    Attributes:
        frames: ``[frames, height, width, 3]``, from 0 to 1.
        latents: as denoising left them, before they are decoded.
        seconds: that denoising took.
    """

    frames: np.ndarray
    latents: torch.Tensor
    seconds: float


def generate(pipeline: Any, embeddings: torch.Tensor, settings: DemoSettings, label: str) -> Video:
    """Generate a video; the same noise for a seed.

    Args:
        pipeline: a ``WanPipeline``.
        embeddings: ``[1, tokens, text dim]`` for it.
        label: stands in front of the progress bar.
    """
    last: dict[str, Any] = {}

    def keep(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        last.update(latents=tensors["latents"], time=time.perf_counter())
        return tensors

    pipeline.set_progress_bar_config(desc=f"{label:>5}")
    start = time.perf_counter()
    frames = pipeline(
        prompt_embeds=embeddings,
        num_inference_steps=settings.steps,
        num_frames=settings.frames,
        width=settings.width,
        height=settings.height,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(settings.seed),
        callback_on_step_end=keep,
    ).frames[0]
    return Video(frames, last["latents"], last["time"] - start)
