"""What a host says while a run goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..report.report import Report
from ..report.so_far import DensitySoFar
from .reasons import CROSS_ATTENTION

_SHORTEST_INTERVAL = 0.2


class Progress:
    """Says the step of the denoising and what the attention calls before it were. Never waits for the GPU.

    With several GPUs, threads have forwards under way at the same time.

    Args:
        announce: shows a line in place of the one before.
        now: tells the time, in seconds.
    """

    def __init__(
        self, announce: Callable[[str], None], report: Report, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._announce, self._report, self._now = announce, report, now
        self._density = DensitySoFar(report)
        self._step: int | None = None
        self._where = ""
        self._said = -_SHORTEST_INTERVAL
        self._ended = False
        self._lock = threading.Lock()

    def begin_forward(self, step: int, steps: int) -> None:
        """Say that a step begins, unless one has just been said: steps may be short."""
        with self._lock:
            if step == self._step or self._now() - self._said < _SHORTEST_INTERVAL:
                return
            self._step = step
            self._where = f"PSA: step {step + 1} of {steps}"
            self._say(self._so_far())

    def compiling(self) -> None:
        """Say that kernels are about to be compiled, until the next step."""
        with self._lock:
            self._say("compiling kernels, once")

    def end(self) -> None:
        """Say nothing from now on: of a run that was broken off, other threads may still be in a forward."""
        with self._lock:
            self._ended = True

    def _so_far(self) -> str:
        density = self._density.ask()
        if density is not None:
            return f"density so far {density:.2f}"
        reasons = [reason for reason, _ in self._report.dense_reasons.most_common() if reason != CROSS_ATTENTION]
        return f"all dense so far ({', '.join(reasons)})" if reasons and not self._report.sparse_count else ""

    def _say(self, what: str) -> None:
        if self._ended:
            return
        self._said = self._now()
        self._announce(", ".join(filter(None, (self._where, what))))
