"""The prompt that a model is reading, and what it makes of it: which forward pass it is at, and what that did."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from ...report.report import Report
from ..place import Place
from ..reasons import EXPECTED
from ..run import Run

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Prompt:
    """Shared by the layers of one model.

    Attributes:
        run: settings, and the report of this prompt.
        base: the attention implementation that dense calls run.
        keep_levels: whether reports keep level maps.
        step: forward passes since the prompt began, chunks of it and then the tokens that follow; -1 before the first.
    """

    run: Run
    base: str
    keep_levels: bool = False
    step: int = -1
    _layer: int = -1
    _told: set[str] = field(default_factory=set)

    def enter(self, layer: int, past: int) -> None:
        """Take note of an attention call; the first of a pass over tokens without a past starts a new report.

        Args:
            past: tokens in front of the queries.
        """
        if layer <= self._layer or self.step < 0:
            self.step += 1
            if past == 0:
                self.step, self.run = 0, replace(self.run, report=Report(self.keep_levels))
        self._layer = layer

    def place(self, layer: int, condition: Hashable) -> Place:
        """Where a call of this pass stands; ``condition`` tells the rows of its batch apart."""
        return Place(self.step, layer, None, condition=condition, grid_optional=True, causal=True)

    def stay_dense(self, reason: str, layer: int) -> None:
        """Count a dense call; a reason is logged when it is met for the first time."""
        self.run.report.add_dense(reason, self.step, layer)
        if reason not in self._told:
            self._told.add(reason)
            log.log(logging.INFO if reason in EXPECTED else logging.WARNING, "PSA: calls stay dense: %s", reason)
