"""Step, layer -> config: what stays dense when, and how ``mask_ratios`` move over the denoising."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .amount import Amount, read_amount
from .errors import ConfigError
from .mask_ratios import quota_density, read_mask_ratios
from .sizes import MOST_LAYERS
from .validation import check_choice, check_whole, share, whole_of

CURVES = ("constant", "linear", "cosine", "timestep")
# Names each of as many layers as there may be.
_LONGEST_TEXT = 8192


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
            at ``start``, ``"linear"`` and ``"cosine"`` (slow, fast, slow) move every bound. ``"timestep"`` is the
            config's ``mask_mode: timestep``, with ``start`` for its ``mask_ratios``.
        start, end: ``mask_ratios``; None for those of the config. For ``mask_mode: calibrated`` they say a density,
            that of quotas, and None is the config's ``target_density``.
        steps: of the whole denoising, where the user says so; 0 leaves it to the host to find out. What is given wins
            over what the host would find.
        start_step: with ``steps``: how many steps of the whole come before those that the model samples here.
        start_percent, end_percent: a window of the denoising, as shares from 0 to 1; attention is dense before its
            start, and from its end on. ComfyUI's percent, which is of the noise: its ``percent_to_sigma`` makes a
            noise level of it. In the diffusers host the share of the steps done. A step runs sparse where both the
            window and ``warmup`` and ``last_dense`` let it.

    Raises:
        ConfigError: a setting is not allowed; the message names the key, the value and what is allowed.
    """

    warmup: Amount | None = None
    last_dense: Amount = 0
    dense_layers: str | Sequence[int] = ()
    curve: str = "constant"
    start: Mapping[int, tuple[float, float]] | None = None
    end: Mapping[int, tuple[float, float]] | None = None
    steps: int = 0
    start_step: int = 0
    start_percent: float = 0.0
    end_percent: float = 1.0

    def __post_init__(self) -> None:
        check_choice("curve", self.curve, CURVES)
        set_field = object.__setattr__
        set_field(self, "warmup", None if self.warmup is None else read_amount("warmup", self.warmup))
        set_field(self, "last_dense", read_amount("last_dense", self.last_dense))
        set_field(self, "dense_layers", _read_layers(self.dense_layers))
        for key in ("start", "end"):
            ratios = getattr(self, key)
            set_field(self, key, None if ratios is None else read_mask_ratios(ratios, 128, key))
        _check_part(self.steps, self.start_step)
        for key in ("start_percent", "end_percent"):
            set_field(self, key, share(key, getattr(self, key)))
        if self.start_percent >= self.end_percent:
            raise ConfigError("start_percent", self.start_percent, f"must be below end_percent = {self.end_percent:g}")

    @property
    def has_window(self) -> bool:
        """Whether the percents leave anything out."""
        return self.start_percent > 0 or self.end_percent < 1

    @property
    def densities(self) -> dict[str, float]:
        """The quotas that steps move between, by name (``start``, ``end``), as densities; None's are left out."""
        used = {"constant": ("start",), "timestep": ()}.get(self.curve, ("start", "end"))
        found = {key: getattr(self, key) for key in used}
        return {key: min(quota_density(ratios), 1.0) for key, ratios in found.items() if ratios is not None}

    def check_levels(self, block_n: int) -> None:
        """See that key blocks of this size can take every level.

        Raises:
            ConfigError: they cannot.
        """
        for key in ("start", "end"):
            if getattr(self, key) is not None:
                read_mask_ratios(getattr(self, key), block_n, f"schedule.{key}")


def _check_part(steps: Any, start_step: Any) -> None:
    """See that ``start_step`` is one of ``steps``."""
    check_whole("steps", steps, 0)
    check_whole("start_step", start_step, 0)
    if start_step and not steps:
        raise ConfigError("start_step", start_step, "needs steps, the number of steps of the whole denoising")
    if steps and start_step >= steps:
        raise ConfigError("start_step", start_step, f"must be below steps = {steps}")


def _read_layers(value: Any) -> tuple[int, ...]:
    """Layers in ascending order, each once."""
    allowed = "must be transformer blocks counted from 0, such as 0, 1, 38-39"
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise ConfigError("dense_layers", value, f"{allowed}; a text of {len(value):,} letters is no such list")
        layers: set[int] = set()
        for word in re.sub(r"\s*-\s*", "-", value).replace(",", " ").replace(";", " ").split():
            first, dash, last = word.partition("-")
            low, high = whole_of(first), whole_of(last if dash else first)
            if low is None or high is None:
                raise ConfigError("dense_layers", word, allowed)
            if not low <= high < MOST_LAYERS:
                raise ConfigError("dense_layers", word, f"{allowed}, below {MOST_LAYERS} and from low to high")
            layers.update(range(low, high + 1))
        return tuple(sorted(layers))
    if not isinstance(value, Sequence):
        raise ConfigError("dense_layers", value, allowed)
    for layer in value:
        check_whole("dense_layers", layer, 0, MOST_LAYERS - 1)
    return tuple(sorted(set(value)))
