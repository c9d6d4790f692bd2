"""Which step of the denoising a forward pass belongs to: by a pipeline's scheduler, or by timesteps alone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

# Noise of two runs differs in nearly every number.
_SAMPLES = 256
# The same timestep in half precision, relative.
_CLOSE = 0.01


class Position(NamedTuple):
    """Where in the denoising a forward pass stands.

    Attributes:
        step: 0 for the first of the whole denoising.
        steps: of the whole denoising; None when nobody knows.
        anew: whether a denoising run begins with it.
        repeats: forward passes before it at its timestep: with guidance, a pipeline makes one for each prompt.
        model_stop: the first step of the model that takes over from this one, infinite where none does.
    """

    step: int
    steps: int | None
    anew: bool
    repeats: int = 0
    model_stop: float = math.inf


class SchedulerSteps:
    """Steps as the user of a pipeline counts them, and its progress bar.

    A scheduler lists a timestep for every time that the pipeline calls the model, and ``order`` of them make a step,
    at one noise level or two. Calls with and without prompt share one. A run from a video instead of noise begins part
    way.

    Args:
        pipeline: has the scheduler, which may be replaced later.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._timesteps: Any = None
        self._index = 0
        self._repeats = 0
        self._takeover = math.inf

    def at(self, timestep: torch.Tensor, latents: torch.Tensor) -> Position:
        """The position of a forward pass that is about to run with this timestep, whatever its latents."""
        scheduler = self._pipeline.scheduler
        timesteps = scheduler.timesteps
        # Every run sets its timesteps, also after one that was broken off.
        anew = timesteps is not self._timesteps
        index = _index(scheduler, timestep, unknown=0 if anew else self._index)
        anew = anew or index < self._index
        self._repeats = 0 if anew or index != self._index else self._repeats + 1
        self._timesteps, self._index = timesteps, index
        order = getattr(scheduler, "order", 1)
        asked = getattr(scheduler, "num_inference_steps", None) or len(timesteps)
        # PNDM starts up with calls beside those of its steps, all of them at the first.
        start_up = max(len(timesteps) - asked * order, 0)
        # Some solvers spare the last step its second call.
        step, steps = max(index - start_up, 0) // order, -(-(len(timesteps) - start_up) // order)
        if anew:
            self._takeover = (self._second_model(timesteps) - start_up) / order
        stop = math.ceil(self._takeover) if step < self._takeover < math.inf else math.inf
        return Position(step, steps, anew, self._repeats, stop)

    def _second_model(self, timesteps: torch.Tensor) -> float:
        """Which timestep is the first of a pipeline's second model, as of Wan 2.2; infinite where there is none."""
        ratio = getattr(getattr(self._pipeline, "config", None), "boundary_ratio", None)
        if ratio is None:
            return math.inf
        boundary = ratio * self._pipeline.scheduler.config.num_train_timesteps
        return next((i for i, timestep in enumerate(timesteps.tolist()) if timestep < boundary), math.inf)


class TimestepSteps:
    """Steps of a transformer that runs without its pipeline: each timestep below the one before is a step.

    A timestep above the one before begins a run. So do other latents at the timestep that a run has begun with: runs of
    a single step follow each other that way. The same latents are the same step, because guidance calls a model for
    each of its prompts; a single step that is repeated with its noise looks just like that, and counts as one.

    Args:
        steps: of the whole denoising; None when unknown.
        start_step: how many of them come before a run's first.
        rising: whether it is the timesteps above the one before that are steps.
    """

    def __init__(self, steps: int | None, start_step: int = 0, rising: bool = False) -> None:
        self._steps, self._start_step, self._rising = steps, start_step, rising
        self._step = start_step
        self._repeats = 0
        self._timestep: float | None = None
        self._noise: list[float] = []

    def at(self, timestep: torch.Tensor, latents: torch.Tensor) -> Position:
        """The position of a forward pass that is about to run with this timestep and these latents."""
        now, before = _noisiest(timestep), self._timestep
        self._timestep = now
        anew = before is None or (now < before if self._rising else now > before)
        if anew or (now == before and self._step == 0):
            noise = _sample(latents)
            anew = anew or noise != self._noise
            self._noise = noise
        if anew:
            self._step = self._start_step
        elif now != before:
            self._step += 1
        self._repeats = 0 if anew or now != before else self._repeats + 1
        return Position(self._step, self._steps, anew, self._repeats)


def _index(scheduler: Any, timestep: torch.Tensor, unknown: int) -> int:
    """Of the scheduler's timesteps, that of the forward pass; ``unknown`` where nothing says which."""
    # Schedulers that may name a timestep twice count their calls, and learn at the first where they begin.
    index = getattr(scheduler, "step_index", None)
    if index is None:
        index = getattr(scheduler, "begin_index", None)
    if index is not None and index < len(scheduler.timesteps):
        return index
    # Pipelines may hand timesteps on in the model's precision. Of two that are the same, a run that begins part way
    # begins at the second.
    now, known = _noisiest(timestep), scheduler.timesteps.tolist()
    nearest = min(reversed(range(len(known))), key=lambda i: abs(known[i] - now))
    # Some pipelines hand a model something else than timesteps, such as Cosmos' noise levels.
    return nearest if abs(known[nearest] - now) <= _CLOSE * abs(known[nearest]) else unknown


def _sample(latents: torch.Tensor) -> list[float]:
    """Some of the numbers, spread over all of them."""
    return latents.flatten()[:: -(-latents.numel() // _SAMPLES)].tolist()


def _noisiest(timestep: torch.Tensor) -> float:
    # Image-to-video of Wan 2.2 5B gives every token a timestep, 0 where the image is.
    return float(timestep.max())
