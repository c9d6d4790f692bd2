"""Settings at a step and layer: what stays dense there, and which ``mask_ratios`` run."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .config import PSAConfig
from .mask_ratios import blend_mask_ratios, level_at, quota_density
from .schedule import Schedule

# Guards 25 % of 12 steps against the last bit of a product.
_FUZZ = 1e-9


def dense_reason(config: PSAConfig, step: int, steps: int | None, layer: int) -> str | None:
    """Why a call stays dense by its place alone, in a few words for a user; None when it runs sparse.

    Args:
        step: denoising step, counted over the whole denoising.
        steps: of the whole denoising; None when unknown, which :func:`needs_steps` says whether it may be.
        layer: transformer block.
    """
    if step < _warmup(config, steps):
        return "warm-up"
    if steps is not None and step >= steps - _last_dense(config, steps):
        return "last steps"
    schedule, radial = config.schedule, config.radial
    if (schedule and layer in schedule.dense_layers) or (radial and 0 <= layer < radial.dense_layers):
        return "dense layer"
    if radial is None and _level_of_step(config, step, steps) == 1:
        # The model's own attention does it faster.
        return "full-resolution step"
    return None


def config_at(config: PSAConfig, step: int, steps: int | None) -> PSAConfig:
    """The settings of one step: ``mask_ratios`` where its schedule has them by then, and no schedule.

    Args:
        step, steps: as of :func:`dense_reason`.
    """
    schedule = config.schedule or Schedule()
    start, mode = schedule.start or config.mask_ratios, config.mask_mode
    end = schedule.end or config.mask_ratios
    ratios: Mapping[int, tuple[float, float]] = start
    level = _level_of_step(config, step, steps)
    if level is not None:
        ratios, mode = {level: (0.0, 1.0)}, "topk"
    elif schedule.curve in ("linear", "cosine"):
        ratios = blend_mask_ratios(start, end, _progress(config, step, steps))
    return config.replace(mask_ratios=ratios, mask_mode=mode, schedule=None)


def _level_of_step(config: PSAConfig, step: int, steps: int | None) -> int | None:
    """The level of all blocks at a step, where the progress of the denoising decides it; else None."""
    schedule = config.schedule or Schedule()
    if "timestep" not in (schedule.curve, config.mask_mode):
        return None
    assert steps is not None
    return level_at(schedule.start or config.mask_ratios, step / steps)


def needs_steps(config: PSAConfig) -> bool:
    """Whether the settings mean nothing without the number of steps of the whole denoising."""
    schedule, radial = config.schedule or Schedule(), config.radial
    return (
        isinstance(schedule.warmup, str)
        or schedule.last_dense != 0
        or schedule.curve != "constant"
        or config.mask_mode == "timestep"
        or (radial is not None and radial.last_dense_timesteps > 0)
    )


def _warmup(config: PSAConfig, steps: int | None) -> int:
    """Dense steps at the start; a mask that decides alone has its own in place of the preset's."""
    schedule, radial = config.schedule, config.radial
    if schedule is not None and schedule.warmup is not None:
        own = _amount(schedule.warmup, steps)
    else:
        own = 0 if radial is not None and radial.decides_alone else config.warmup_steps
    return max(own, radial.dense_timesteps) if radial is not None else own


def _last_dense(config: PSAConfig, steps: int) -> int:
    own = _amount(config.schedule.last_dense, steps) if config.schedule is not None else 0
    return max(own, config.radial.last_dense_timesteps) if config.radial is not None else own


def _progress(config: PSAConfig, step: int, steps: int | None) -> float:
    """How far the curve is: 0 at the first sparse step, 1 at the last."""
    assert config.schedule is not None
    assert steps is not None
    first, last = _warmup(config, steps), steps - _last_dense(config, steps) - 1
    linear = min(max((step - first) / (last - first), 0.0), 1.0) if last > first else 0.0
    return (1 - math.cos(math.pi * linear)) / 2 if config.schedule.curve == "cosine" else linear


def _amount(amount: int | str, steps: int | None) -> int:
    if isinstance(amount, int):
        return amount
    assert steps is not None
    return math.ceil(float(amount.removesuffix("%")) / 100 * steps - _FUZZ)


def step_densities(schedule: Schedule, steps: int) -> list[float | None]:
    """The density of every step, as far as it can be told without a config: 1 where it is dense, that of quotas
    (``topk``) where it is sparse, None where the config's own ``mask_ratios`` decide. A warm-up that is left to
    the config counts as none."""
    config = PSAConfig(schedule=schedule, mask_mode="topk")
    known = schedule.start is not None and (schedule.curve in ("constant", "timestep") or schedule.end is not None)
    result: list[float | None] = []
    for step in range(steps):
        if dense_reason(config, step, steps, layer=-1) is not None:
            result.append(1.0)
        else:
            result.append(quota_density(config_at(config, step, steps).mask_ratios) if known else None)
    return result
