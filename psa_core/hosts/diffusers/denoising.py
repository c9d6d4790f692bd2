"""The denoising run under way: which step it is at, and what it did."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch

from ...report.report import Report
from ...settings.at_step import in_window
from ...settings.remarks import remarks
from ...settings.sinks import text_in_front
from ...settings.sizes import Grid
from ..place import Place
from ..reasons import EXPECTED
from ..run import Run
from .operators import number_of
from .steps import Position, SchedulerSteps, TimestepSteps

log = logging.getLogger(__name__)

_NOWHERE = Position(step=0, steps=None, anew=False)


@dataclass(eq=False)
class Denoising:
    """Shared by the transformers of one pipeline.

    Attributes:
        run: settings, and the report of this run.
        keep_levels: whether reports keep level maps.
        counter: knows where a forward pass stands.
        position: of the latest forward pass, as are ``grid``, which is None before the first, ``text_length`` and
            ``frames_per_token``.
        conditions: as of :class:`~psa_core.hosts.place.Place`, of the run.
        number: by which operators know it.
    """

    run: Run
    keep_levels: bool
    counter: SchedulerSteps | TimestepSteps
    position: Position = _NOWHERE
    grid: Grid | None = None
    text_length: int = 0
    frames_per_token: int = 1
    number: torch.Tensor = field(init=False)
    conditions: int = 1
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.number = number_of(self)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A run is not copied: in copies and pickles of what it is part of, None has its place."""
        return type(None), ()

    def enter(
        self, timestep: torch.Tensor, latents: torch.Tensor, grid: Grid, text_length: int, frames_per_token: int
    ) -> None:
        """Take note of a forward pass that is about to run; the first of a run starts a new report.

        Raises:
            ConfigError: scenes that do not fit the clip.
        """
        first = self.grid is None
        self.position = self.counter.at(timestep, latents)
        self.grid, self.text_length, self.frames_per_token = grid, text_length, frames_per_token
        if self.position.anew:
            self.conditions = _conditions(latents)
            self.run.check_frames(grid[0], frames_per_token)
            self._remark()
            if not first:
                self.run = replace(self.run, report=Report(self.keep_levels))

    def _remark(self) -> None:
        """Log what is to be said of the settings in a run of so many steps, once."""
        steps = self.position.steps
        for remark in remarks(self.run.config, steps) if steps else ():
            if remark not in self._told:
                self._told.add(remark)
                log.warning("PSA: %s", remark)

    def place(self, expert: int, layer: int) -> Place:
        """Where the forward pass under way stands in a layer of one of the transformers."""
        step, steps, _, repeats = self.position
        return Place(
            step, layer, self.grid, text_in_front(self.text_length), steps, self.frames_per_token,
            in_window=in_window(self.run.config, step, steps), expert=expert,
            # Pipelines that call a model for each prompt call it twice for each window, too.
            condition=repeats // 2, conditions=self.conditions,
        )  # fmt: skip

    def stay_dense(self, reason: str) -> None:
        """Count a dense call; a reason is logged when it is met for the first time."""
        self.run.report.add_dense(reason, self.position.step)
        self._tell(reason)

    def dense_call(self, reason: str, device: torch.device, layer: int) -> AbstractContextManager[None]:
        """Count a dense call as :meth:`stay_dense` does, and measure it."""
        self._tell(reason)
        return self.run.report.dense_call(reason, device, self.position.step, layer)

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.log(logging.INFO if reason in EXPECTED else logging.WARNING, "PSA: calls stay dense: %s", reason)


def _conditions(latents: torch.Tensor) -> int:
    """How many prompts a pipeline puts side by side: 2 where the second half of the batch has the first one's latents.

    It is asked once a run, since it waits for the GPU.
    """
    clips, rest = divmod(len(latents), 2)
    return 2 if clips and not rest and torch.equal(latents[:clips], latents[clips:]) else 1
