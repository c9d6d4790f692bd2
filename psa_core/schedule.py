"""Step, layer -> config: what stays dense when, and how ``mask_ratios`` move over the denoising."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import ConfigError
from .mask_ratios import blend_mask_ratios, level_at, quota_density, read_mask_ratios
from .validation import check_choice, check_whole

if TYPE_CHECKING:
    from .config import PSAConfig

CURVES = ("constant", "linear", "cosine", "timestep")
_MOST_LAYERS = 1000
# Guards 25 % of 12 steps against the last bit of a product.
_FUZZ = 1e-9


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What changes over the steps and layers of a denoising, validated on construction.

    Attributes:
        warmup: steps at the start that stay dense, as a number or as a share of all steps (``"25%"``, rounded up);
            None leaves it to the config's ``warmup_steps``.
        last_dense: steps at the end that stay dense, alike.
        dense_layers: transformer blocks that stay dense at every step, counted from 0, as a sequence or as text
            (``"0, 1, 38-39"``).
        curve: how ``mask_ratios`` move from ``start`` to ``end`` over the steps that run sparse: ``"constant"`` stays
            at ``start``, ``"linear"`` and ``"cosine"`` (slow, fast, slow) move every bound. ``"timestep"`` reads
            ``start`` as parts of the whole denoising: one level for all blocks of a step.
        start, end: ``mask_ratios``; None for those of the config.

    Raises:
        ConfigError: a setting is not allowed; the message names the key, the value and what is allowed.
    """

    warmup: int | str | None = None
    last_dense: int | str = 0
    dense_layers: str | Sequence[int] = ()
    curve: str = "constant"
    start: Mapping[int, tuple[float, float]] | None = None
    end: Mapping[int, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        check_choice("curve", self.curve, CURVES)
        set_field = object.__setattr__
        set_field(self, "warmup", None if self.warmup is None else _read_amount("warmup", self.warmup))
        set_field(self, "last_dense", _read_amount("last_dense", self.last_dense))
        set_field(self, "dense_layers", _read_layers(self.dense_layers))
        for key in ("start", "end"):
            ratios = getattr(self, key)
            set_field(self, key, None if ratios is None else read_mask_ratios(ratios, 128, key))

    def check_levels(self, block_n: int) -> None:
        """See that key blocks of this size can take every level.

        Raises:
            ConfigError: they cannot.
        """
        for key in ("start", "end"):
            if getattr(self, key) is not None:
                read_mask_ratios(getattr(self, key), block_n, f"schedule.{key}")

    def densities(self, steps: int) -> list[float | None]:
        """The density of every step, as far as it can be told without a config: 1 where it is dense, that of quotas
        (``topk``) where it is sparse, None where the config's own ``mask_ratios`` decide. A warm-up that is left to
        the config counts as none."""
        from .config import PSAConfig

        config = PSAConfig(schedule=self, mask_mode="topk")
        known = self.start is not None and (self.curve in ("constant", "timestep") or self.end is not None)
        result: list[float | None] = []
        for step in range(steps):
            if dense_reason(config, step, steps, layer=-1) is not None:
                result.append(1.0)
            else:
                result.append(quota_density(config_at(config, step, steps).mask_ratios) if known else None)
        return result


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


def _read_amount(key: str, value: Any) -> int | str:
    """A number of steps as an int, a share of them as text such as ``"25%"``."""
    allowed = "must be a number of steps such as 15, or a share of them such as 25%"
    if not isinstance(value, str):
        if type(value) is not int or value < 0:
            raise ConfigError(key, value, allowed)
        return value
    text = value.strip()
    if text.isdecimal():
        return int(text)
    try:
        percent = float(text.removesuffix("%")) if text.endswith("%") else math.nan
    except ValueError:
        percent = math.nan
    if not 0 <= percent <= 100:
        raise ConfigError(key, value, allowed)
    return f"{percent:g}%"


def _read_layers(value: Any) -> tuple[int, ...]:
    """Layers in ascending order, each once."""
    allowed = "must be transformer blocks counted from 0, such as 0, 1, 38-39"
    if isinstance(value, str):
        layers: set[int] = set()
        for word in re.sub(r"\s*-\s*", "-", value).replace(",", " ").replace(";", " ").split():
            first, _, last = word.partition("-")
            if not first.isdecimal() or not (last or first).isdecimal() or word.endswith("-"):
                raise ConfigError("dense_layers", word, allowed)
            if not int(first) <= int(last or first) < _MOST_LAYERS:
                raise ConfigError("dense_layers", word, f"{allowed}, below {_MOST_LAYERS} and from low to high")
            layers.update(range(int(first), int(last or first) + 1))
        return tuple(sorted(layers))
    if not isinstance(value, Sequence):
        raise ConfigError("dense_layers", value, allowed)
    for layer in value:
        check_whole("dense_layers", layer, 0)
    return tuple(sorted(set(value)))
