"""What a user may set: one frozen, validated dataclass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .errors import ConfigError

BLOCK_M = (64, 128)
BLOCK_N = (32, 64, 128)
MASK_MODES = ("thresholdbound", "topk")
REARRANGE_METHODS = ("Gilbert", "Tile")
IMPORTANCE_ESTIMATORS = ("sampled_max", "mean")
ATTN_IMPLS = ("new_mask_type", "old_mask_type")
SIM_LEVELS = {"x2": 2, "x4": 4, "x8": 8}

_TOLERANCE = 1e-6


class FrozenMap(Mapping[Any, Any]):
    """An immutable, hashable, picklable mapping, so that a config holding one can be a cache key and can be copied."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[Any, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


DEFAULT_MASK_RATIOS = {1: (0.0, 0.4), 2: (0.4, 0.5), 4: (0.5, 0.6), 8: (0.6, 0.8), 0: (0.8, 1.0)}
DEFAULT_SIM_THRESHOLDS = {"x2": 0.7, "x4": 0.65, "x8": 0.6}


@dataclass(frozen=True, kw_only=True)
class PSAConfig:
    """Settings of Pyramid Sparse Attention, validated on construction.

    Attributes:
        type: ``"psa"``, or ``"dense"`` for a baseline that leaves attention as it is.
        block_m: queries a query block (64 or 128).
        block_n: keys a key block (32, 64 or 128).
        tile_n: accepted from upstream's files; kernels choose their own tiles.
        mask_ratios: ``{level: (lo, hi)}`` with the levels 1, 2, 4 ... ``block_n`` and 0 (skipped) last; the intervals
            tile [0, 1] in that order, an empty one (lo == hi) switches its level off. Shares of a row's importance
            (``thresholdbound``) or of its blocks (``topk``).
        mask_mode: ``"thresholdbound"`` or ``"topk"``.
        min_full_ratio: least share of a row's blocks that stays at level 1 under ``thresholdbound``.
        importance: estimator of block importance, ``"sampled_max"`` (the paper's) or ``"mean"``.
        use_sim_mask: cap each key block's level by the cosine similarity of its keys.
        sim_thresholds: ``{"x2", "x4", "x8"}``: mean similarity above which a block may be pooled that far.
        use_rearrange: reorder video tokens before blocks are cut.
        rearrange_method: ``"Gilbert"`` or ``"Tile"``.
        tile_size: (frames, height, width) in tokens of a tile, for ``"Tile"``.
        warmup_steps: denoising steps at the start that stay dense. Hosts apply it; a bare call has no steps.
        min_tokens: sequences shorter than this stay dense. Hosts apply it; a bare call does what it is asked.
        text_length: text tokens in front of the video tokens, for callers that do not say.
        attn_impl: accepted from upstream's files; there is one kernel here and it takes every combination.
        verbose: log each run's settings.
        description: shown to people.

    Raises:
        ConfigError: a setting is not allowed; the message names the key, the value and what is allowed.
    """

    type: str = "psa"
    block_m: int = 128
    block_n: int = 128
    tile_n: int = 32
    mask_ratios: Mapping[int, tuple[float, float]] = dataclasses.field(
        default_factory=lambda: FrozenMap(DEFAULT_MASK_RATIOS)
    )
    mask_mode: str = "thresholdbound"
    min_full_ratio: float = 0.06
    importance: str = "sampled_max"
    use_sim_mask: bool = False
    sim_thresholds: Mapping[str, float] = dataclasses.field(default_factory=lambda: FrozenMap(DEFAULT_SIM_THRESHOLDS))
    use_rearrange: bool = True
    rearrange_method: str = "Gilbert"
    tile_size: tuple[int, int, int] = (2, 8, 8)
    warmup_steps: int = 0
    # On an H200 sparse is faster from here on, 1.25x at the least, with 12 and 40 heads of 128 and with 48 of 64, up to
    # density 0.4.
    min_tokens: int = 8192
    text_length: int = 0
    attn_impl: str = "new_mask_type"
    verbose: bool = False
    description: str = ""
    # The settings as a Python dictionary, for compiled graphs, which carry texts and no objects. Each object has its
    # own; not a field, because a field would be one more setting.
    as_text: ClassVar[str]

    def __post_init__(self) -> None:
        _choice("type", self.type, ("psa", "dense"))
        _choice("block_m", self.block_m, BLOCK_M)
        _choice("block_n", self.block_n, BLOCK_N)
        _choice("mask_mode", self.mask_mode, MASK_MODES)
        _choice("importance", self.importance, IMPORTANCE_ESTIMATORS)
        _choice("rearrange_method", self.rearrange_method, REARRANGE_METHODS)
        _choice("attn_impl", self.attn_impl, ATTN_IMPLS)
        for key in ("use_sim_mask", "use_rearrange", "verbose"):
            _choice(key, getattr(self, key), (True, False))
        _whole("tile_n", self.tile_n, 1)
        for key in ("warmup_steps", "min_tokens", "text_length"):
            _whole(key, getattr(self, key), 0)
        if not isinstance(self.description, str):
            raise ConfigError("description", self.description, "must be a text")
        set_field = object.__setattr__
        set_field(self, "min_full_ratio", _share("min_full_ratio", self.min_full_ratio))
        set_field(self, "mask_ratios", _mask_ratios(self.mask_ratios, self.block_n))
        set_field(self, "sim_thresholds", _sim_thresholds(self.sim_thresholds))
        set_field(self, "tile_size", _tile_size(self.tile_size))
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        set_field(self, "as_text", repr(settings))

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that a row may use, finest first, skipped (0) last; level 1 is always among them."""
        used = {level for level, (lo, hi) in self.mask_ratios.items() if hi > lo}
        return tuple(sorted(used | {1}, key=pyramid_order))

    def replace(self, **changes: Any) -> PSAConfig:
        """A copy with some settings changed, validated again."""
        return dataclasses.replace(self, **changes)

    def notes(self) -> list[str]:
        """What a user should know about settings that are accepted and change nothing."""
        notes = []
        if self.use_sim_mask and self.attn_impl == "new_mask_type" and self.type == "psa":
            notes.append(
                "attn_impl: new_mask_type has no effect: there is one kernel here and use_sim_mask works with it"
            )
        return notes


def mask_ratios_from_bounds(bounds: Mapping[int, float]) -> dict[int, tuple[float, float]]:
    """``mask_ratios`` from the upper bound of each level; what lies above the last bound is skipped.

    Args:
        bounds: level -> upper bound from 0 to 1; 0 leaves the level out.

    Raises:
        ConfigError: a bound lies below that of a finer level.
    """
    ratios: dict[int, tuple[float, float]] = {}
    end = 0.0
    for level in sorted(bounds):
        bound = bounds[level]
        if bound == 0:
            continue
        if bound < end:
            raise ConfigError(
                f"mask_ratios.{level}", bound, f"must not be below the finer level's bound {end:g} (0 leaves it out)"
            )
        ratios[level] = (end, bound)
        end = bound
    return ratios | {0: (end, 1.0)}


def bounds_from_mask_ratios(ratios: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """The inverse of :func:`mask_ratios_from_bounds`: the upper bound of each level, skipped (0) left out."""
    return {level: hi for level, (_, hi) in ratios.items() if level}


def pyramid_order(level: int) -> float:
    """Sort key that puts levels in pyramid order: 1, 2, 4 ... and skipped (0) last."""
    return level or math.inf


def allowed_levels(block_n: int) -> tuple[int, ...]:
    """The levels that key blocks of ``block_n`` keys can take, in pyramid order: 1, 2, 4 ... block_n, 0."""
    return (*(1 << i for i in range(block_n.bit_length())), 0)


def _choice(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value == option and type(value) is type(option) for option in allowed):
        raise ConfigError(key, value, "must be one of " + ", ".join(map(str, allowed)))


def _whole(key: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise ConfigError(key, value, f"must be a whole number, {least} or more")


def _share(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ConfigError(key, value, "must be a number from 0 to 1")
    return float(value)


def _mask_ratios(ratios: Any, block_n: int) -> FrozenMap:
    """Validate ``mask_ratios`` and return it in pyramid order with levels as ints and bounds as floats."""
    if not isinstance(ratios, Mapping) or not ratios:
        raise ConfigError(
            "mask_ratios", ratios, "must map pyramid levels to intervals, such as {1: [0, 0.4], 0: [0.4, 1]}"
        )
    allowed = allowed_levels(block_n)
    intervals: dict[int, tuple[float, float]] = {}
    for key, interval in ratios.items():
        # JSON has text keys only; a graph or a sidecar file that went through it is the same setting.
        level = int(key) if isinstance(key, str) and key.isdecimal() else key
        if type(level) is not int or level not in allowed:
            raise ConfigError(
                "mask_ratios", key, f"a level must be one of {', '.join(map(str, allowed))} (block_n is {block_n})"
            )
        if level in intervals:
            raise ConfigError("mask_ratios", key, f"level {level} is given twice")
        if not isinstance(interval, Sequence) or isinstance(interval, str) or len(interval) != 2:
            raise ConfigError(f"mask_ratios.{level}", interval, "must be an interval [lo, hi]")
        lo, hi = (_share(f"mask_ratios.{level}", bound) for bound in interval)
        intervals[level] = (lo, hi)
    ordered = sorted(intervals, key=pyramid_order)
    end = 0.0
    for level in ordered:
        lo, hi = intervals[level]
        if abs(lo - end) > _TOLERANCE:
            raise ConfigError(
                f"mask_ratios.{level}",
                [lo, hi],
                f"must start at {end:g}, where the finer level ends: intervals tile [0, 1] in the order 1, 2, 4 ... 0",
            )
        if hi < lo:
            raise ConfigError(f"mask_ratios.{level}", [lo, hi], "the upper bound must not be below the lower one")
        end = hi
    if abs(end - 1.0) > _TOLERANCE:
        raise ConfigError(
            f"mask_ratios.{ordered[-1]}", list(intervals[ordered[-1]]), "the last interval must end at 1.0"
        )
    return FrozenMap({level: intervals[level] for level in ordered})


def _sim_thresholds(thresholds: Any) -> FrozenMap:
    if not isinstance(thresholds, Mapping):
        raise ConfigError("sim_thresholds", thresholds, "must map x2, x4 and x8 to cosine similarities")
    for key in thresholds:
        if key not in SIM_LEVELS:
            raise ConfigError("sim_thresholds", key, "must be one of x2, x4, x8")
    values = {}
    for key in SIM_LEVELS:
        value = thresholds.get(key, DEFAULT_SIM_THRESHOLDS[key])
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1.0 <= value <= 1.0:
            raise ConfigError(f"sim_thresholds.{key}", value, "must be a cosine similarity from -1 to 1")
        values[key] = float(value)
    return FrozenMap(values)


def _tile_size(size: Any) -> tuple[int, int, int]:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 3:
        raise ConfigError("tile_size", size, "must be three whole numbers: frames, height, width")
    for extent in size:
        _whole("tile_size", extent, 1)
    frames, height, width = size
    return frames, height, width
