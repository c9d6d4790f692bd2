"""The denoising run under way: which step it is at, and what it did."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch

from ...report.report import Report
from ...settings.at_step import window_steps
from ...settings.remarks import remarks
from ..mask import masks_something
from ..place import Place
from ..reasons import EXPECTED
from ..run import Run
from .families import Inputs, Tokens
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
        position: of the latest forward pass, as are ``tokens``, None before the first.
        conditions: as in :class:`~psa_core.hosts.place.Place`, of the run; and ``clips``, how many videos have them.
        leading: reference frames before the clip, of the run.
        number: by which operators know it.
    """

    run: Run
    keep_levels: bool
    counter: SchedulerSteps | TimestepSteps
    position: Position = _NOWHERE
    tokens: Tokens | None = None
    number: torch.Tensor = field(init=False)
    conditions: int = 1
    clips: int = 1
    leading: int = 0
    _told: set[str] = field(default_factory=set)
    # Of the latest forward pass: calls by expert and layer, and tokens that are no padding, once somebody has asked.
    _calls: Counter[tuple[int, int]] = field(default_factory=Counter)
    _unpadded: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.number = number_of(self)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A run is not copied: in copies and pickles of what it is part of, None has its place."""
        return type(None), ()

    def enter(self, inputs: Inputs) -> None:
        """Take note of a forward pass that is about to run; the first of a run starts a new report.

        Raises:
            ConfigError: scenes that do not fit the clip.
        """
        first = self.tokens is None
        self.position = self.counter.at(inputs.timestep, inputs.latents)
        self.tokens = tokens = inputs.tokens
        self._calls.clear()
        self._unpadded.clear()
        if self.position.anew:
            self.conditions = _conditions(inputs.latents)
            self.clips = max(len(inputs.latents) // self.conditions, 1)
            self.leading = 0 if tokens.leading is None else int(tokens.leading)
            if tokens.grid is not None:
                self.run.check_frames(tokens.grid[0] - self.leading, tokens.frames_per_token)
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

    def place(self, expert: int, layer: int, tokens: int, first_head: int | None = None) -> Place:
        """Where a call of so many tokens stands, in a layer of one of the models, in the forward pass under way."""
        step, steps, _, repeats, model_stop = self.position
        known = self.tokens or Tokens()
        layout = known.layout(tokens)
        nth, window = self._calls[expert, layer], window_steps(self.run.config, steps)
        self._calls[expert, layer] += 1
        return Place(
            step, layer, layout.grid, layout.sinks, steps, known.frames_per_token,
            in_window=window.has(step), window_steps=window, reference_frames=(self.leading, 0), expert=expert,
            # Pipelines that call a model for each prompt call it twice for each window, too. Models that call
            # attention for each video of a batch have all videos with one prompt before those with the next.
            condition=(repeats // 2, nth % self.clips), conditions=self.conditions,
            others=layout.others, grid_optional=known.grid_optional, first_head=first_head,
            model_stop=model_stop,
        )  # fmt: skip

    def unmasked(self, tokens: int, mask: torch.Tensor | None) -> int | None:
        """How many tokens of a call see one another, those that a mask leaves; None where it is not as simple as that.

        Args:
            tokens: of the call.
            mask: of the call; None leaves all.
        """
        if mask is None:
            return tokens
        unpadded = None if self.tokens is None else self.tokens.unpadded
        if unpadded is None:
            return None if masks_something(mask) else tokens
        if not self._unpadded:
            self._unpadded.update(unpadded.tolist())
        return next(iter(self._unpadded)) if len(self._unpadded) == 1 else None

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
