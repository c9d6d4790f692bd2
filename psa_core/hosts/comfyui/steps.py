"""Which part of the whole denoising a sampler call is: KSamplerAdvanced and denoise below 1 sample a part of it."""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from typing import Any

import comfy.samplers

from ...settings.errors import ConfigError
from ...settings.schedule import Schedule
from ..noise_levels import CLOSE, MOST_STEPS, Part, Window, falls, part_of_schedules, part_of_shifted_uniform

log = logging.getLogger(__name__)


def stated_part(schedule: Schedule, own_steps: int) -> Part | None:
    """The part that a schedule says a sampler call is; None where it does not.

    Raises:
        ConfigError: the sampler call has more steps than that.
    """
    if not schedule.steps:
        return None
    least = schedule.start_step + own_steps
    if least > schedule.steps:
        allowed = f"must be {least} or more: the sampler runs {own_steps} steps from step {schedule.start_step} on"
        raise ConfigError("schedule.steps", schedule.steps, allowed)
    return Part(schedule.start_step, schedule.steps)


def window_of(schedule: Schedule, model_sampling: Any) -> Window:
    """The noise levels of a schedule's window, as in core's nodes with ``start_percent`` and ``end_percent``."""
    first, last = schedule.start_percent, schedule.end_percent
    start = float(model_sampling.percent_to_sigma(first)) if first > 0 else math.inf
    end = float(model_sampling.percent_to_sigma(last)) if last < 1 else -math.inf
    return Window(start, end)


def part_of_denoising(sigmas: list[float], model_sampling: Any) -> Part:
    """Which part of the whole denoising a sampler call is.

    A sampler is told only its own part of the schedule. The whole is found again by trying ComfyUI's schedulers, then
    equal steps under any shift, and where none fits, by assuming steps of equal size in noise level. A list that does
    not fall from step to step is its maker's own and taken as a whole. It depends on nothing but the arguments, so the
    same graph gives the same picture whatever ran before it; and it does not raise, whatever other packs have put in
    the place of ComfyUI's parts.

    Args:
        sigmas: the part of the schedule, with the final sigma.
        model_sampling: the model's own noise schedule.
    """
    own = Part(0, max(len(sigmas) - 1, 0))
    if own.steps < 1 or not falls(sigmas):
        return own
    try:
        from_the_start = sigmas[0] >= float(model_sampling.sigma_max) * (1 - CLOSE)
        if from_the_start and sigmas[-1] == 0:
            return own
        found = part_of_schedules(sigmas, _core_schedules(model_sampling)) or part_of_shifted_uniform(sigmas)
        return found or _estimate(sigmas, model_sampling)
    except Exception as error:
        log.warning("PSA: the steps before this sampler's own are not counted: %s: %s", type(error).__name__, error)
        return own


# A quarter of a second of work; a noise schedule is made once for a model and its shift, and never changed.
@lru_cache(maxsize=4)
def _core_schedules(model_sampling: Any) -> list[list[float]]:
    """The sigmas of ComfyUI's own schedulers for every number of steps.

    Those that packs have registered beside them may raise, take long or return anything, and are not called.
    """
    schedules = []
    for name, handler in comfy.samplers.SCHEDULER_HANDLERS.items():
        if not _is_core(handler):
            continue
        for steps in range(1, MOST_STEPS + 1):
            try:
                sigmas = comfy.samplers.calculate_sigmas(model_sampling, name, steps).tolist()
            except Exception as error:
                # A model's own noise schedule need not have what every scheduler reads.
                log.debug("scheduler %s, %d steps: %s", name, steps, error)
                continue
            if all(map(math.isfinite, sigmas)):
                schedules.append(sigmas)
    return schedules


def _is_core(handler: Any) -> bool:
    function = getattr(handler, "handler", None)
    # A partial is a function of functools.
    function = getattr(function, "func", function)
    return (getattr(function, "__module__", None) or "").partition(".")[0] == "comfy"


def _estimate(sigmas: list[float], model_sampling: Any) -> Part:
    levels = model_sampling.sigmas
    first, last = (1 - float((levels < sigma).float().mean()) for sigma in (sigmas[0], sigmas[-1]))
    own = len(sigmas) - 1
    size = (last - first) / own
    before, after = (round(first / size), round((1 - last) / size)) if size > 0 else (0, 0)
    return Part(before, before + own + after)
