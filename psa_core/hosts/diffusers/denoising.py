"""The denoising run under way: which step it is at, and what it did."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from ...report import Report
from ..run import Place, Run
from .families import Inputs

log = logging.getLogger(__name__)

# What the settings ask for is no news.
_EXPECTED = ("warm-up", "the preset is dense")


@dataclass
class Denoising:
    """Shared by the transformers of one pipeline.

    Schedulers only ever lower the timestep. Forward passes that share one (with and without prompt, a solver's repeated
    evaluations) are one step, and a higher one means that another run has begun.

    Attributes:
        run: settings, and the report of this run.
        keep_levels: whether reports keep level maps.
        step: 0 for the first.
        inputs: of the latest forward pass; None before the first.
    """

    run: Run
    keep_levels: bool
    step: int = 0
    inputs: Inputs | None = None
    _told: set[str] = field(default_factory=set)

    def enter(self, inputs: Inputs) -> None:
        """Take note of a forward pass that is about to run."""
        previous, self.inputs = self.inputs, inputs
        if previous is None or inputs.timestep == previous.timestep:
            return
        if inputs.timestep < previous.timestep:
            self.step += 1
        else:
            self.step = 0
            self.run = replace(self.run, report=Report(self.keep_levels))

    def place(self, layer: int) -> Place:
        """Where the forward pass under way stands in a layer."""
        if self.inputs is None:
            return Place(self.step, layer, None)
        return Place(self.step, layer, self.inputs.grid, self.inputs.text_length)

    def stay_dense(self, reason: str) -> None:
        """Count a dense call; a reason is logged when it is met for the first time."""
        self.run.report.add_dense(reason)
        if reason not in self._told:
            self._told.add(reason)
            log.log(logging.INFO if reason in _EXPECTED else logging.WARNING, "PSA: calls stay dense: %s", reason)
