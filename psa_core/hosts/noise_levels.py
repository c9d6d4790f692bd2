"""Steps from lists of noise levels (sigmas) alone: which step a level belongs to, and which part of a whole a list is.

Samplers are handed lists that mean to fall from the most noise to none, but packs and users make others: that rise,
start over, hold a level twice or a zero that is not last. None of them may raise here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from ..settings.at_step import Steps

# The same level in another precision, relative.
CLOSE = 1e-4
# Distilled models publish their levels with four decimals.
_CLOSE_TO_UNIFORM = 1e-3
# Of a denoising that is found again from a part of it.
MOST_STEPS = 100


class Part(NamedTuple):
    """Where a sampler call stands in the whole denoising.

    Attributes:
        before: steps of the whole that come before it.
        steps: of the whole.
    """

    before: int
    steps: int


class Window(NamedTuple):
    """Noise levels from ``start`` down to ``end``, which is no longer among them."""

    start: float = math.inf
    end: float = -math.inf

    def holds(self, sigma: float) -> bool:
        """Whether a level lies in it. Steps often begin at a bound itself, in another precision."""
        return sigma < self.start * (1 + CLOSE) and sigma > self.end * (1 + CLOSE)

    def steps(self, sigmas: Sequence[float], before: int) -> Steps:
        """The steps that begin in it, from the first to the last of them.

        Args:
            sigmas: levels of a sampler call's steps, with the final one. Where it begins (ends) within the window,
                the window is taken to hold the steps before (after) it, too.
            before: steps of the whole denoising that come before the call's.
        """
        inside = [step for step, sigma in enumerate(sigmas[:-1]) if self.holds(sigma)]
        if not inside:
            return Steps()
        first, last = inside[0], inside[-1]
        start = before + first if first else 0
        return Steps(start, before + last + 1 if last + 2 < len(sigmas) else math.inf)


class StepCounter:
    """Counts the steps of one sampler call by the levels at which the model is called.

    In a list that falls throughout, a level says its step by itself. In one that comes by a level again, the step is
    the first with that level from the latest step on.

    Args:
        sigmas: the call's levels, with the final one.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._sigmas = list(sigmas)
        self._step = 0

    def at(self, sigma: float) -> int:
        """The step, from 0, of a call of the model at this level; samplers also call between two levels."""
        steps = [step for step in range(len(self._sigmas) - 1) if self._holds(step, sigma)]
        if steps:
            self._step = next((step for step in steps if step >= self._step), steps[0])
        else:
            starts = self._sigmas[:-1] or [0.0]
            self._step = min(range(len(starts)), key=lambda step: abs(starts[step] - sigma))
        return self._step

    def _holds(self, step: int, sigma: float) -> bool:
        """Whether a level lies in a step. Where one step ends the next begins, and has the level."""
        start, end = self._sigmas[step : step + 2]
        if _close(sigma, start):
            return True
        if _close(sigma, end):
            return step == len(self._sigmas) - 2
        return min(start, end) < sigma < max(start, end)


def falls(sigmas: Sequence[float]) -> bool:
    """Whether every level is below the one before it, and none negative."""
    return all(a > b for a, b in pairwise(sigmas)) and min(sigmas, default=0.0) >= 0


def part_of_schedules(sigmas: Sequence[float], schedules: Iterable[Sequence[float]]) -> Part | None:
    """Which part of one of these schedules a falling list is; None where it is part of none.

    Args:
        sigmas: two levels or more.
        schedules: of whole denoisings, each with the final level.
    """
    long_enough = [whole for whole in schedules if len(whole) >= len(sigmas)]
    if any(len(whole) == len(sigmas) and _find(sigmas, whole, 0)[1] < CLOSE for whole in long_enough):
        return Part(0, len(sigmas) - 1)
    # Some samplers drop the last sigma but one, so that their schedule is one longer than their steps.
    for dropped in (0, 1):
        found = []
        for whole in long_enough:
            start, apart = _find(sigmas, whole, dropped)
            steps = len(whole) - 1 - dropped
            # Schedules of several lengths can begin alike; people ask for round numbers of steps.
            found.append((apart, start, steps % 10 != 0, steps % 4 != 0, steps % 2 != 0, steps))
        apart, start, *_, steps = min(found, default=(math.inf, 0, 0))
        if apart < CLOSE:
            return Part(start, steps)
    return None


def part_of_shifted_uniform(sigmas: Sequence[float]) -> Part | None:
    """Which part a falling list is of equal steps in time under some shift, as a distilled flow model's own levels are.

    A flow model shifts a time u to the level ``s u / (1 + (s - 1) u)``, so that ``1 / u = 1 + s (1 / level - 1)``.
    Three levels of equal steps settle s; the others must agree.

    Returns:
        None for a list of fewer than three levels, of levels above 1, or that no shift makes equal steps.
    """
    if len(sigmas) < 3 or sigmas[0] > 1 + CLOSE:
        return None
    sigmas = [min(sigma, 1.0) for sigma in sigmas]
    shift = _shift(*sigmas[:3])
    if shift is None:
        return None
    times = [_time(sigma, shift) for sigma in sigmas]
    steps = round(1 / (times[0] - times[1]))
    before = round((1 - times[0]) * steps)
    if not len(sigmas) - 1 <= steps <= MOST_STEPS or before + len(sigmas) - 1 > steps:
        return None
    expected = [1 - (before + i) / steps for i in range(len(sigmas))]
    apart = max(abs(a - b) for a, b in zip(times, expected, strict=True))
    return Part(before, steps) if apart < _CLOSE_TO_UNIFORM else None


def _shift(first: float, second: float, third: float) -> float | None:
    """The shift under which three falling levels are equally far apart in time; None where there is none."""
    # With a = 1 / level - 1, times are 1 / (1 + s a), and u0 - u1 = u1 - u2 is linear in s.
    a, b = 1 / first - 1, 1 / second - 1
    if third == 0:
        over, under = 1.0, b - 2 * a
    else:
        c = 1 / third - 1
        over, under = a + c - 2 * b, b * (a + c) - 2 * a * c
    return over / under if under > 0 and over > 0 else None


def _time(sigma: float, shift: float) -> float:
    return sigma / (shift - (shift - 1) * sigma)


def _find(part: Sequence[float], whole: Sequence[float], dropped: int) -> tuple[int, float]:
    """Where ``part`` fits ``whole`` best, and its largest relative error there; infinite where it cannot be."""
    ends_at_zero = part[-1] == 0
    known = part[:-1] if ends_at_zero else part
    starts = [len(whole) - len(part) - dropped] if ends_at_zero else range(len(whole) - len(part) + 1)
    best, error = 0, math.inf
    for start in starts:
        piece = whole[start : start + len(known)] if start >= 0 else []
        if len(piece) == len(known):
            apart = max(abs(a - b) / abs(a) for a, b in zip(known, piece, strict=True))
            best, error = (start, apart) if apart < error else (best, error)
    return best, error


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * max(abs(a), abs(b))
