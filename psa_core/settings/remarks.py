"""What to say of allowed settings once a run is known: which of them hold, and which come to nothing there."""

from __future__ import annotations

from collections.abc import Mapping

from .amount import steps_of
from .at_step import dense_places, warmups
from .config import PSAConfig
from .schedule import Schedule

# What the warm-ups of presets are of the steps that those were made for.
_USUAL_WARMUP = "30%"


def remarks(config: PSAConfig, steps: int, layers: int | None = None) -> list[str]:
    """A line for each thing that a user may not have meant, or cannot see from settings in several places.

    Args:
        steps: of the whole denoising.
        layers: transformer blocks of the model; None when unknown.
    """
    if config.type == "dense" or not steps:
        return []
    found = [*_warmup_that_holds(config, steps), *_few_sparse_steps(config, steps), *_skipped_levels(config)]
    found += [*_unused_target(config), *_unused_curve(config, steps)]
    return found if layers is None else [*found, *_layers(config, steps, layers)]


def _warmup_that_holds(config: PSAConfig, steps: int) -> list[str]:
    """Which warm-up it is, where there are others."""
    counted = {source: steps_of(amount, steps) for source, amount in warmups(config).items()}
    holding = max(counted, key=lambda source: counted[source])
    shown = {"preset": steps_of(config.warmup_steps, steps)} | counted
    others = [f"the {source}'s {count}" for source, count in shown.items() if count not in (0, counted[holding])]
    return [f"warm-up steps: the {holding}'s {counted[holding]}, not {' and '.join(others)}"] if others else []


def _few_sparse_steps(config: PSAConfig, steps: int) -> list[str]:
    """Dense steps that leave none sparse, or a warm-up in steps that leaves fewer than it takes."""
    start, stop, *_ = dense_places(config, steps)
    sparse = max(int(stop) - start, 0)
    in_steps = any(amount == start for amount in warmups(config).values())
    if sparse and not (in_steps and start > sparse):
        return []
    ending = "" if stop == steps else f", {steps - int(stop)} at the end"
    line = f"{sparse or 'none'} of {steps} steps run sparse ({start} dense at the start{ending})"
    usual = steps_of(_USUAL_WARMUP, steps)
    return [f"{line}; a warm-up of {_USUAL_WARMUP} would take {usual}" if usual < start else line]


def _skipped_levels(config: PSAConfig) -> list[str]:
    """Bounds that skip everything."""
    schedule, radial = config.schedule or Schedule(), config.radial
    if radial is not None and radial.decides_alone:
        return []
    if config.mask_mode == "calibrated" and schedule.curve != "timestep":
        return []
    sets: list[Mapping[int, tuple[float, float]]] = [schedule.start or config.mask_ratios]
    if schedule.curve in ("linear", "cosine"):
        sets.append(schedule.end or config.mask_ratios)
    if all(any(level and hi > lo for level, (lo, hi) in ratios.items()) for ratios in sets):
        return []
    return ["all levels are 0: nearly everything is skipped, and the video falls apart; raise level 1"]


def _unused_target(config: PSAConfig) -> list[str]:
    """What heads should be calibrated for, where they are not."""
    schedule, radial = config.schedule or Schedule(), config.radial
    if config.mask_mode != "calibrated":
        return []
    target = "target_density" if config.target_error is None else "target_error"
    line = f"{target} = {getattr(config, target):g} has no effect"
    if radial is not None and radial.decides_alone:
        return [f"{line}: the mask decides alone (its mode is {radial.mode})"]
    if schedule.curve == "timestep":
        return [f"{line}: the schedule's curve is timestep, which gives all blocks of a step one level"]
    return []


def _unused_curve(config: PSAConfig, steps: int) -> list[str]:
    """A curve whose first step has the level maps of all."""
    schedule, radial = config.schedule or Schedule(), config.radial
    start, stop, *_ = dense_places(config, steps)
    alone = radial is not None and radial.decides_alone
    if alone or schedule.curve not in ("linear", "cosine") or not 1 < stop - start <= config.map_steps:
        return []
    return [f"the schedule's curve has no effect: map_steps = {config.map_steps} keeps the first sparse step's maps"]


def _layers(config: PSAConfig, steps: int, layers: int) -> list[str]:
    """Dense layers that the model does not have, or that are all it has."""
    places = dense_places(config, steps)
    if all(places.has_layer(layer) for layer in range(layers)):
        return [f"all {layers} layers of the model are dense: nothing runs sparse"]
    beyond = [str(layer) for layer in places.layers if layer >= layers]
    if not beyond:
        return []
    return [f"dense_layers {', '.join(beyond)}: the model has {layers} layers, counted from 0"]
