"""The denoising run under way: which step it is at, and what it did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from ...report import Report
from ...sizes import Grid
from ..run import Place, Run
from .operators import number_of

log = logging.getLogger(__name__)

# What the settings ask for is no news.
_EXPECTED = ("warm-up", "last steps", "dense layer", "full-resolution step", "the preset is dense")
# Pipelines hand timesteps on in the model's precision.
_CLOSE = 5e-3


@dataclass(eq=False)
class Denoising:
    """Shared by the transformers of one pipeline.

    Schedulers only ever lower the timestep. Forward passes that share one (with and without prompt, a solver's repeated
    evaluations) are one step, and a higher one means that another run has begun.

    Attributes:
        run: settings, and the report of this run.
        keep_levels: whether reports keep level maps.
        timesteps: gives all timesteps of the run under way, also those of steps that it leaves out; None when nobody
            knows.
        steps: of the whole denoising; None when unknown.
        step: 0 for the first.
        timestep: of the latest forward pass, as are ``grid``, ``text_length`` and ``frames_per_token``; None before
            the first.
        number: by which operators know it.
    """

    run: Run
    keep_levels: bool
    timesteps: Callable[[], Sequence[float]] | None = None
    steps: int | None = None
    step: int = 0
    timestep: float | None = None
    grid: Grid | None = None
    text_length: int = 0
    frames_per_token: int = 1
    number: torch.Tensor = field(init=False)
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.number = number_of(self)

    def enter(self, timestep: torch.Tensor, grid: Grid, text_length: int, frames_per_token: int) -> None:
        """Take note of a forward pass that is about to run.

        Raises:
            ConfigError: scenes that do not fit the clip.
        """
        # Image-to-video of Wan 2.2 5B gives every token a timestep, 0 where the image is.
        now = float(timestep.max())
        previous, self.timestep = self.timestep, now
        self.grid, self.text_length, self.frames_per_token = grid, text_length, frames_per_token
        if previous is None or now > previous:
            self._begin(now, anew=previous is not None)
        elif now < previous:
            self.step += 1

    def _begin(self, now: float, anew: bool) -> None:
        """A denoising run starts with this timestep."""
        assert self.grid is not None
        self.run.check_frames(self.grid[0], self.frames_per_token)
        self.step = 0
        if self.timesteps is not None:
            # Solvers that evaluate twice a step name a timestep twice.
            known = set(self.timesteps())
            self.steps = len(known)
            # From a video instead of noise, denoising begins part way.
            self.step = sum(t > now * (1 + _CLOSE) for t in known)
        if anew:
            self.run = replace(self.run, report=Report(self.keep_levels))

    def place(self, layer: int) -> Place:
        """Where the forward pass under way stands in a layer."""
        return Place(self.step, layer, self.grid, self.text_length, self.steps, self.frames_per_token)

    def stay_dense(self, reason: str) -> None:
        """Count a dense call; a reason is logged when it is met for the first time."""
        self.run.report.add_dense(reason)
        if reason not in self._told:
            self._told.add(reason)
            log.log(logging.INFO if reason in _EXPECTED else logging.WARNING, "PSA: calls stay dense: %s", reason)
