"""Recipes that the heads of one layer chose in a run, and when they choose anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from ..attention.choose import choose_recipes
from ..attention.errors import relative_error
from ..attention.recipes import Choice
from ..attention.trial import Trial, measure_again
from ..ops.reorder import Orders
from ..report.on_its_way import OnItsWay

# Measures what is done on a device inside its ``with``.
Timed = Callable[[torch.device], AbstractContextManager[Any]]

# Steps from a choice, or from its being measured again, to its being measured again; and so in a denoising of no more
# steps than these, whose errors fall so fast with the noise that the last alone would tell too little of them.
MEASURE_EVERY = 4
MEASURE_EVERY_FEW, FEW_STEPS = 2, 8
# Steps from there until what came of it is acted on: by then the GPU has told, and that it is the same step each time
# makes runs alike.
ACT_AFTER = 2
# Heads choose anew where the error of their layer has grown to so many times what it was.
GROWN = 1.5
# Errors go by density to a power of this or so: -0.3 on the synthetic mix, -0.4 and -0.8 on trained heads.
_BY_DENSITY = -0.5


@dataclass
class KeptChoice:
    """Recipes of one layer.

    Attributes:
        choice: the recipe of each head.
        before, measured_at: ``Choice.spot``, and the last step in which such was measured.
        again: the same measured later, until it is acted on.
        density, density_again: those that were asked for where these were measured; None with a target error.
    """

    choice: Choice | None = None
    before: OnItsWay | None = None
    measured_at: int = 0
    again: OnItsWay | None = None
    density: float | None = None
    density_again: float | None = None

    def take(self, choice: Choice, step: int, density: float | None) -> Choice:
        """Keep recipes that the layer is given, at this density."""
        self.choice, self.measured_at, self.density = choice, step, density
        return choice

    def choose(self, trial: Trial, step: int, timed: Timed) -> Choice | None:
        """Have heads choose: all of them in the first step, those whose error has grown later; None for none."""
        device, kept, entries = trial.q.device, self.choice, None
        if kept is not None:
            grown = self._grown(step)
            if grown is None:
                return None
            # What a GPU is given without a wait lies in pinned memory.
            entries = (grown.pin_memory() if device.type == "cuda" else grown).to(device, non_blocking=True)
        with timed(device):
            choice = choose_recipes(trial)
            if kept is not None and entries is not None:
                choice = choice.where(entries, kept)
        self.before = OnItsWay(choice.spot)
        return self.take(choice, step, trial.config.target_density)

    def is_due(self, step: int, steps: int | None, last: bool) -> bool:
        """Whether to measure again: every few steps, and in the last, so that the shortest runs report an error too.

        Args:
            steps: of the whole denoising; None when unknown.
        """
        every = MEASURE_EVERY if steps is None or steps > FEW_STEPS else MEASURE_EVERY_FEW
        return step >= self.measured_at + (1 if last else every)

    def measure(
        self, trial: Trial, orders: Orders | None, out: torch.Tensor, step: int, density: float | None, timed: Timed
    ) -> torch.Tensor:
        """Measure the error of a call's output.

        Args:
            orders: of its level map.
            density: that was asked for when the map was made.

        Returns:
            Squared norms as in ``Choice.spot``.
        """
        with timed(trial.q.device):
            measured = measure_again(trial, orders, out)
        self.again, self.measured_at, self.density_again = OnItsWay(measured), step, density
        return measured

    @property
    def _bound(self) -> float:
        """From how many times the error before heads choose anew, beside what another density has to do with it."""
        if self.density is None or self.density_again is None:
            return GROWN
        return GROWN * (self.density_again / self.density) ** _BY_DENSITY

    def _grown(self, step: int) -> torch.Tensor | None:
        """Of which batch entries the error has grown, bool ``[B]``; None for none, or before it is time to ask."""
        if self.again is None or self.before is None or step < self.measured_at + ACT_AFTER:
            return None
        grown = _of_entries(self.again.value()) > self._bound * _of_entries(self.before.value())
        self.again = None
        return grown if grown.any() else None


def _of_entries(spot: torch.Tensor) -> torch.Tensor:
    """The error of each batch entry, ``[B]``, from squared norms ``[2, B, H]``."""
    wrong, right = spot.sum(-1)
    return relative_error(wrong, right)
