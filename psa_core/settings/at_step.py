"""Settings at a step and layer: what stays dense there, and which ``mask_ratios`` run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from .amount import Amount, steps_of
from .config import PSAConfig
from .mask_ratios import blend_mask_ratios, level_at, quota_density
from .schedule import Schedule

# Guards a bound of the window against the last bit of a product.
_FUZZ = 1e-9


class Steps(NamedTuple):
    """Steps of a denoising from ``start`` up to ``stop``, which is no longer among them."""

    start: int = 0
    stop: float = math.inf

    def has(self, step: int) -> bool:
        """Whether a step is one of them."""
        return self.start <= step < self.stop


ALL_STEPS = Steps()


class DensePlaces(NamedTuple):
    """The steps and layers that stay dense, of preset, schedule and mask together.

    Attributes:
        start: the first step that may run sparse.
        stop: the first after it that stays dense again; infinite where the number of steps is unknown.
        layers: transformer blocks, counted from 0.
        first_layers: how many of the first blocks beside them.
    """

    start: int
    stop: float
    layers: Sequence[int]
    first_layers: int

    def has_layer(self, layer: int) -> bool:
        """Whether a transformer block is one of them."""
        return layer in self.layers or 0 <= layer < self.first_layers


# Asked on every attention call.
@lru_cache(maxsize=64)
def dense_places(config: PSAConfig, steps: int | None) -> DensePlaces:
    """What stays dense by its place.

    Args:
        steps: of the whole denoising; None when unknown, which :func:`needs_steps` says whether it may be.
    """
    schedule, radial = config.schedule or Schedule(), config.radial
    start = max(steps_of(amount, steps) for amount in warmups(config).values())
    stop = math.inf if steps is None else steps - max(steps_of(amount, steps) for amount in _endings(config))
    layers = cast("Sequence[int]", schedule.dense_layers)
    return DensePlaces(start, stop, layers, 0 if radial is None else radial.dense_layers)


def sparse_layers(config: PSAConfig, layers: int) -> list[int]:
    """The transformer blocks that may run sparse, of a model that has so many."""
    # They do not depend on the steps.
    places = dense_places(config, 1)
    return [layer for layer in range(layers) if not places.has_layer(layer)]


def warmups(config: PSAConfig) -> dict[str, Amount]:
    """The warm-ups that count, by where they are set: ``schedule``, ``preset``, ``mask``. The longest of them holds."""
    schedule, radial = config.schedule, config.radial
    found: dict[str, Amount] = {}
    if schedule is not None and schedule.warmup is not None:
        found["schedule"] = schedule.warmup
    # A mask that decides alone has dense steps of its own in place of the preset's.
    elif radial is None or not radial.decides_alone:
        found["preset"] = config.warmup_steps
    if radial is not None:
        found["mask"] = radial.dense_timesteps
    return found


def _endings(config: PSAConfig) -> tuple[Amount, ...]:
    """The last steps that stay dense, wherever they are set; the most of them hold."""
    schedule, radial = config.schedule or Schedule(), config.radial
    return (schedule.last_dense, 0 if radial is None else radial.last_dense_timesteps)


def is_full_resolution(config: PSAConfig, step: int, steps: int | None) -> bool:
    """Whether all blocks of a step are at level 1, which is dense attention.

    Args:
        step: denoising step, counted over the whole denoising.
        steps: as in :func:`dense_places`.
    """
    return config.radial is None and _level_of_step(config, step, steps) == 1


# Asked on every attention call.
@lru_cache(maxsize=64)
def window_steps(config: PSAConfig, steps: int | None) -> Steps:
    """The steps in the schedule's window, with its percents as shares of the steps done.

    Args:
        steps: as in :func:`dense_places`.
    """
    schedule = config.schedule
    if schedule is None or not schedule.has_window:
        return ALL_STEPS
    assert steps is not None
    start, stop = (math.ceil((bound - _FUZZ) * steps) for bound in (schedule.start_percent, schedule.end_percent))
    return Steps(start, math.inf if schedule.end_percent == 1 else stop)


def config_at(config: PSAConfig, step: int, steps: int | None, window: Steps = ALL_STEPS) -> PSAConfig:
    """The settings of one step: ``mask_ratios`` where its schedule has them by then, or the target density that they
    say, and no schedule. A level map that the step alone decides is made anew in each.

    Args:
        step, steps: as in :func:`is_full_resolution`.
        window: the steps that the schedule's window lets run sparse, of which ``early_density`` is spread; curves go
            over all steps.
    """
    level = _level_of_step(config, step, steps)
    if level is not None:
        changes: dict[str, Any] = {"mask_mode": "topk", "mask_ratios": {level: (0.0, 1.0)}, "map_steps": 1}
    elif config.mask_mode == "calibrated":
        changes = {"target_density": _density_at(config, step, steps, window), "early_density": 1.0}
    else:
        changes = {"mask_ratios": _ratios_at(config, step, steps)}
    return config.replace(**changes, schedule=None)


def _ratios_at(config: PSAConfig, step: int, steps: int | None) -> Mapping[int, tuple[float, float]]:
    schedule = config.schedule or Schedule()
    start = schedule.start or config.mask_ratios
    if schedule.curve == "constant":
        return start
    return blend_mask_ratios(start, schedule.end or config.mask_ratios, _progress(config, step, steps))


def _density_at(config: PSAConfig, step: int, steps: int | None, window: Steps) -> float | None:
    """The target density, or that of the ``mask_ratios`` that a schedule has in its place; None with a target error."""
    if config.target_density is None:
        return None
    if config.schedule is None or not config.schedule.densities:
        return _falling_density(config, config.target_density, step, steps, window)
    said = config.schedule.densities
    start, end = said.get("start", config.target_density), said.get("end", config.target_density)
    if config.schedule.curve == "constant" or start == end:
        return start
    progress = _progress(config, step, steps)
    return (1 - progress) * start + progress * end


def _falling_density(config: PSAConfig, mean: float, step: int, steps: int | None, window: Steps) -> float:
    """The density of a step where it falls from ``early_density`` times the mean. A map that is kept has that of the
    middle of the steps that it serves, so that the mean stays what it is."""
    places = dense_places(config, steps)
    first, last = max(places.start, window.start), min(places.stop, window.stop) - 1
    if config.early_density == 1.0 or last <= first:
        return mean
    middle = (step + min(step + config.map_steps - 1, last)) / 2
    linear = _share_done(middle, first, last)
    # Above 1 there is nothing to gain: what the beginning cannot take is not taken from the end.
    early = min(config.early_density, 1 / mean)
    return mean * (early + linear * (2 - 2 * early))


def _level_of_step(config: PSAConfig, step: int, steps: int | None) -> int | None:
    """The level of all blocks at a step, where the progress of the denoising decides it; else None."""
    schedule = config.schedule or Schedule()
    if "timestep" not in (schedule.curve, config.mask_mode):
        return None
    assert steps is not None
    return level_at(schedule.start or config.mask_ratios, step / steps)


def needs_steps(config: PSAConfig) -> bool:
    """Whether the settings mean nothing without the number of steps of the whole denoising."""
    schedule = config.schedule or Schedule()
    return (
        any(isinstance(amount, str) for amount in warmups(config).values())
        or any(amount != 0 for amount in _endings(config))
        or schedule.curve != "constant"
        or schedule.has_window
        or config.mask_mode == "timestep"
        or (config.mask_mode == "calibrated" and config.early_density != 1.0)
    )


def _progress(config: PSAConfig, step: int, steps: int | None) -> float:
    """How far the curve is: 0 at the first sparse step, 1 at the last."""
    assert config.schedule is not None
    places = dense_places(config, steps)
    linear = _share_done(step, places.start, places.stop - 1)
    return (1 - math.cos(math.pi * linear)) / 2 if config.schedule.curve == "cosine" else linear


def _share_done(step: float, first: int, last: float) -> float:
    """0 at the first of some steps, 1 at the last."""
    return min(max((step - first) / (last - first), 0.0), 1.0) if last > first else 0.0


def step_densities(schedule: Schedule, steps: int) -> list[float | None]:
    """The density of every step, as far as it can be told without a config: 1 where it is dense, that of quotas
    (``topk``) where it is sparse, None where the config's own ``mask_ratios`` decide. A warm-up that is left to
    the config counts as none."""
    config = PSAConfig(schedule=schedule, mask_mode="topk")
    places = dense_places(config, steps)
    known = schedule.start is not None and (schedule.curve in ("constant", "timestep") or schedule.end is not None)
    result: list[float | None] = []
    for step in range(steps):
        if not places.start <= step < places.stop or is_full_resolution(config, step, steps):
            result.append(1.0)
        else:
            result.append(quota_density(config_at(config, step, steps).mask_ratios) if known else None)
    return result
