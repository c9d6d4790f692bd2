"""Which step of the whole denoising a forward belongs to, also when KSamplerAdvanced samples a part of it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import comfy.samplers

_CLOSE = 1e-4
_MOST_STEPS = 100


def step_of(sigma: float, sigmas: list[float]) -> int:
    """Index of the step that ``sigma`` belongs to; samplers also ask for sigmas between those of the schedule."""
    return max(0, sum(s >= sigma * (1 - _CLOSE) for s in sigmas[:-1]) - 1)


class Part(NamedTuple):
    """Where a sampler call stands in the whole denoising.

    Attributes:
        before: steps of the whole that come before it.
        steps: of the whole.
    """

    before: int
    steps: int


def part_of_denoising(sigmas: list[float], model_sampling: Any) -> Part:
    """Which part of the whole denoising a sampler call is.

    A sampler is told only its own part of the schedule. The whole is found again by trying the stock schedulers, and
    where none fits, by assuming steps of equal size in noise level. It depends on nothing but the arguments, so the
    same graph gives the same picture whatever ran before it.

    Args:
        sigmas: the part of the schedule, descending, with the final sigma.
        model_sampling: the model's own noise schedule.
    """
    own = len(sigmas) - 1
    from_the_start = not sigmas or sigmas[0] >= float(model_sampling.sigma_max) * (1 - _CLOSE)
    if own < 1 or (from_the_start and sigmas[-1] == 0):
        return Part(0, max(own, 0))
    schedules = [whole for whole in _stock_schedules(model_sampling) if len(whole) > len(sigmas)]
    # Some samplers drop the last sigma but one, so that their schedule is one longer than their steps.
    for dropped in (0, 1):
        found = []
        for whole in schedules:
            start, apart = _find(sigmas, whole, dropped)
            steps = len(whole) - 1 - dropped
            # Schedules of several lengths can begin alike; people ask for round numbers of steps.
            found.append((apart, start, steps % 10 != 0, steps % 4 != 0, steps % 2 != 0, steps))
        apart, start, *_, steps = min(found, default=(math.inf, 0, 0))
        if apart < _CLOSE:
            return Part(start, steps)
    return _estimate(sigmas, model_sampling)


# A quarter of a second of work; a noise schedule is made once for a model and its shift, and never changed.
@lru_cache(maxsize=4)
def _stock_schedules(model_sampling: Any) -> list[list[float]]:
    """The stock schedulers' sigmas for every number of steps."""
    return [
        comfy.samplers.calculate_sigmas(model_sampling, scheduler, total).tolist()
        for scheduler in comfy.samplers.SCHEDULER_NAMES
        for total in range(1, _MOST_STEPS + 1)
    ]


def _find(part: list[float], whole: list[float], dropped: int) -> tuple[int, float]:
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


def _estimate(sigmas: list[float], model_sampling: Any) -> Part:
    levels = model_sampling.sigmas
    first, last = (1 - float((levels < sigma).float().mean()) for sigma in (sigmas[0], sigmas[-1]))
    own = len(sigmas) - 1
    size = (last - first) / own
    before, after = (round(first / size), round((1 - last) / size)) if size > 0 else (0, 0)
    return Part(before, before + own + after)
