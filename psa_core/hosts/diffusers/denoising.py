"""The denoising run under way: which step it is at, and what it did."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import torch

from ...reorder import Grid
from ...report import Report
from ..run import Place, Run
from .operators import number_of

log = logging.getLogger(__name__)

# What the settings ask for is no news.
_EXPECTED = ("warm-up", "the preset is dense")


@dataclass(eq=False)
class Denoising:
    """Shared by the transformers of one pipeline.

    Schedulers only ever lower the timestep. Forward passes that share one (with and without prompt, a solver's repeated
    evaluations) are one step, and a higher one means that another run has begun.

    Attributes:
        run: settings, and the report of this run.
        keep_levels: whether reports keep level maps.
        step: 0 for the first.
        timestep: of the latest forward pass, as are ``grid`` and ``text_length``; None before the first.
        number: by which operators know it.
    """

    run: Run
    keep_levels: bool
    step: int = 0
    timestep: float | None = None
    grid: Grid | None = None
    text_length: int = 0
    number: torch.Tensor = field(init=False)
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.number = number_of(self)

    def enter(self, timestep: torch.Tensor, grid: Grid, text_length: int) -> None:
        """Take note of a forward pass that is about to run."""
        # Image-to-video of Wan 2.2 5B gives every token a timestep, 0 where the image is.
        now = float(timestep.max())
        previous, self.timestep, self.grid, self.text_length = self.timestep, now, grid, text_length
        if previous is None or now == previous:
            return
        if now < previous:
            self.step += 1
        else:
            self.step = 0
            self.run = replace(self.run, report=Report(self.keep_levels))

    def place(self, layer: int) -> Place:
        """Where the forward pass under way stands in a layer."""
        return Place(self.step, layer, self.grid, self.text_length)

    def stay_dense(self, reason: str) -> None:
        """Count a dense call; a reason is logged when it is met for the first time."""
        self.run.report.add_dense(reason)
        if reason not in self._told:
            self._told.add(reason)
            log.log(logging.INFO if reason in _EXPECTED else logging.WARNING, "PSA: calls stay dense: %s", reason)
