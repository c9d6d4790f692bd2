"""What a user may set: one frozen, validated dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .amount import Amount, read_amount
from .errors import ConfigError
from .mask_ratios import DEFAULT_MASK_RATIOS, pyramid_order, read_mask_ratios
from .mixes import levels_of_mixes
from .orders import DEFAULT_CANDIDATE_ORDERS, RASTER, REORDER_METHODS, read_candidate_orders
from .radial import RadialMask
from .schedule import Schedule
from .sizes import BLOCK_M, BLOCK_N
from .targets import read_targets
from .validation import (
    FrozenMap,
    check_choice,
    check_kind,
    check_text,
    check_whole,
    extents,
    nested,
    number_between,
    plain,
    share,
)

MASK_MODES = ("thresholdbound", "topk", "timestep", "calibrated")
IMPORTANCE_ESTIMATORS = ("sampled_max", "sampled_sum", "mean", "sub_block_mass")
PRECISIONS = ("bf16", "int8", "int8+fp8", "auto")
DENSE_BACKENDS = ("model", "cudnn", "comfy_kitchen", "sage")
ATTN_IMPLS = ("new_mask_type", "old_mask_type")
SIM_LEVELS = {"x2": 2, "x4": 4, "x8": 8}

# What "calibrated" means without a target.
DEFAULT_TARGET_DENSITY = 0.15
# At 2 the last step would have nothing.
_MOST_EARLY_DENSITY = 1.9
_MOST_MEMORY = 4096.0
DEFAULT_TILE_SIZE = (2, 8, 8)
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
            tile [0, 1] in that order, an empty one (lo == hi) switches its level off.
        mask_mode: what the intervals are shares of: ``"thresholdbound"``, a row's importance; ``"topk"``, its blocks;
            ``"timestep"``, the whole denoising, so that all blocks of a step have one level: that of the interval
            which holds ``step / steps``. Hosts know the step; a bare call takes what
            :func:`psa_core.settings.at_step.config_at` makes of it. ``"calibrated"``: no intervals, but for every head
            the :class:`~.recipe.Recipe` that the error measured on a few query blocks speaks for; ``mask_ratios``,
            ``min_full_ratio``, ``importance``, ``use_rearrange`` and ``rearrange_method`` then decide nothing.
        target_density: ``"calibrated"``: density of every head, above 0 and at most 1; 0.15 where neither target is
            given.
        early_density: ``"calibrated"`` with a ``target_density``: how many times as dense the first sparse step is, 1
            to 1.9; from there it falls evenly, so that the mean over the steps is what was asked for. A schedule that
            says densities wins. Hosts apply it.
        target_error: ``"calibrated"``, in place of it: relative error of a head's output, above 0 and at most 1; each
            head takes the cheapest recipe that keeps to it.
        candidate_orders: ``"calibrated"``: the orders that heads choose from, ``"Raster"`` and what
            ``rearrange_method`` may be. ``"Semantic"`` and ``"Hybrid"`` cost a clustering for each level map.
        min_full_ratio: least share of a row's blocks that stays at level 1 under ``thresholdbound``.
        importance: estimator of block importance, ``"sampled_max"`` (of arXiv 2512.04025), ``"sampled_sum"``,
            ``"sub_block_mass"`` or ``"mean"``.
        use_sim_mask: cap each key block's level by the cosine similarity of its keys.
        sim_thresholds: ``{"x2", "x4", "x8"}``: mean similarity above which a block may be pooled that far.
        use_rearrange: reorder video tokens before blocks are cut.
        rearrange_method: ``"Gilbert"``, a curve through neighbours; ``"Tile"``, box after box; ``"Rows"`` or
            ``"Columns"``, a row or column of the picture in all frames before the next; ``"Semantic"``, clusters of
            each head's keys, and of its queries, one after another; ``"Hybrid"``, such clusters inside tiles.
        tile_size: (frames, height, width) in tokens of a tile, for ``"Tile"`` and ``"Hybrid"``.
        warmup_steps: denoising steps at the start that stay dense, as a number or as a share of all steps (``"25%"``,
            rounded up). Hosts apply it; a bare call has no steps.
        min_tokens: sequences shorter than this stay dense. Hosts apply it; a bare call does what it is asked.
        text_length: text tokens in front of the video tokens, for callers that do not say.
        attn_impl: accepted from upstream's files; every kernel here takes every combination.
        schedule: what changes over steps and layers, a :class:`~.schedule.Schedule` or a mapping of its
            fields. Hosts apply it.
        radial: a static mask, a :class:`~psa_core.settings.radial.RadialMask` or a mapping of its fields; its dense
            steps and layers are the hosts' business.
        map_steps: steps that a layer's level map is kept for; 1 makes it anew in every step. Hosts apply it.
        precision: what attention is computed in: ``"bf16"``, as the model's tensors are; ``"int8"``, queries and keys
            in INT8; ``"int8+fp8"``, values at level 1 in FP8, too; ``"auto"``, the coarsest that the GPU has matrix
            instructions for, with heads left out to whose output it adds more than 2 % of error. What a GPU has not
            gives way to what it has.
        dense_backend: what runs calls that these settings leave dense, as in warm-up and dense layers: ``"model"``, the
            model's own attention; ``"cudnn"``; or in INT8, which is an approximation, ``"comfy_kitchen"`` or
            ``"sage"`` where they are installed. Hosts apply it.
        max_extra_memory: GiB that a sparse call may take beside q, k, v and its output, its level map and what choosing
            one takes included: as many heads at a time are computed as keep to it, one at the least, which changes
            nothing in the result. Of orders by content, clusters take up to 0.4 whatever the limit. 0 or None for none.
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
    target_density: float | None = None
    target_error: float | None = None
    early_density: float = 1.0
    candidate_orders: tuple[str, ...] = DEFAULT_CANDIDATE_ORDERS
    min_full_ratio: float = 0.06
    importance: str = "sampled_max"
    use_sim_mask: bool = False
    sim_thresholds: Mapping[str, float] = dataclasses.field(default_factory=lambda: FrozenMap(DEFAULT_SIM_THRESHOLDS))
    use_rearrange: bool = True
    rearrange_method: str = "Gilbert"
    tile_size: tuple[int, int, int] = DEFAULT_TILE_SIZE
    warmup_steps: Amount = 0
    # On an H200 sparse is faster from here on, 1.25x at the least, with 12 and 40 heads of 128 and with 48 of 64, up to
    # density 0.4.
    min_tokens: int = 8192
    text_length: int = 0
    attn_impl: str = "new_mask_type"
    schedule: Schedule | None = None
    radial: RadialMask | None = None
    map_steps: int = 1
    precision: str = "bf16"
    dense_backend: str = "model"
    max_extra_memory: float = 0.0
    verbose: bool = False
    description: str = ""
    # The settings as a Python dictionary, for compiled graphs, which carry texts and no objects. Each object has its
    # own; not a field, because a field would be one more setting.
    as_text: ClassVar[str]

    def __post_init__(self) -> None:
        check_choice("type", self.type, ("psa", "dense"))
        check_choice("block_m", self.block_m, BLOCK_M)
        check_choice("block_n", self.block_n, BLOCK_N)
        check_choice("mask_mode", self.mask_mode, MASK_MODES)
        check_choice("importance", self.importance, IMPORTANCE_ESTIMATORS)
        check_choice("rearrange_method", self.rearrange_method, REORDER_METHODS)
        check_choice("attn_impl", self.attn_impl, ATTN_IMPLS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("dense_backend", self.dense_backend, DENSE_BACKENDS)
        for key in ("use_sim_mask", "use_rearrange", "verbose"):
            check_choice(key, getattr(self, key), (True, False))
        for key in ("tile_n", "map_steps"):
            check_whole(key, getattr(self, key), 1)
        for key in ("min_tokens", "text_length"):
            check_whole(key, getattr(self, key), 0)
        check_text("description", self.description)
        set_field = object.__setattr__
        set_field(self, "early_density", number_between("early_density", self.early_density, 1.0, _MOST_EARLY_DENSITY))
        set_field(self, "max_extra_memory", _gib("max_extra_memory", self.max_extra_memory))
        set_field(self, "warmup_steps", read_amount("warmup_steps", self.warmup_steps))
        set_field(self, "min_full_ratio", share("min_full_ratio", self.min_full_ratio))
        set_field(self, "mask_ratios", read_mask_ratios(self.mask_ratios, self.block_n))
        set_field(self, "sim_thresholds", _sim_thresholds(self.sim_thresholds))
        set_field(self, "tile_size", extents("tile_size", self.tile_size))
        set_field(self, "candidate_orders", read_candidate_orders(self.candidate_orders))
        set_field(self, "schedule", nested("schedule", self.schedule, Schedule))
        set_field(self, "radial", nested("radial", self.radial, RadialMask))
        if self.radial is not None and self.radial.use_sage_attention and self.precision == "bf16":
            set_field(self, "precision", "auto")
        if self.schedule is not None:
            self.schedule.check_levels(self.block_n)
        self._read_targets()
        set_field(self, "as_text", repr(plain(self)))

    def _read_targets(self) -> None:
        """Check both targets, of which ``"calibrated"`` takes one and no other mode any."""
        density, error = read_targets(self.target_density, self.target_error)
        if self.mask_mode == "calibrated":
            density = DEFAULT_TARGET_DENSITY if density is None and error is None else density
        elif density is not None or error is not None:
            key = "target_error" if density is None else "target_density"
            raise ConfigError(key, getattr(self, key), f"needs mask_mode calibrated, not {self.mask_mode}")
        object.__setattr__(self, "target_density", density)
        object.__setattr__(self, "target_error", error)
        if self.mask_mode == "calibrated" and self.schedule is not None:
            self._check_scheduled(self.schedule)

    def _check_scheduled(self, schedule: Schedule) -> None:
        """See that the densities of a schedule can take the place of the target."""
        for key, density in schedule.densities.items():
            if self.target_error is not None:
                allowed = f"must not stand beside mask_ratios of a schedule, which say a density: leave out its {key}"
                raise ConfigError("target_error", self.target_error, f"{allowed}, or give target_density")
            if density == 0:
                allowed = "skips everything; the density that it says for mask_mode calibrated must be above 0"
                raise ConfigError(f"schedule.{key}", plain(getattr(schedule, key)), allowed)

    @property
    def levels(self) -> tuple[int, ...]:
        """The pyramid levels that a row may use, finest first, skipped (0) last; level 1 is always among them."""
        if self.mask_mode == "calibrated":
            used = levels_of_mixes(self.block_n)
        else:
            used = {level for level, (lo, hi) in self.mask_ratios.items() if hi > lo}
        return tuple(sorted(used | {1}, key=pyramid_order))

    @property
    def order(self) -> str:
        """The order that all heads have, where calibration does not decide."""
        return self.rearrange_method if self.use_rearrange else RASTER

    def replace(self, **changes: Any) -> PSAConfig:
        """A copy with some settings changed, validated again.

        A target goes where the other one, or a ``mask_mode`` that has none, takes its place; and the radial mask's
        ``use_sage_attention``, the other name of a precision, where one is given.
        """
        radial = changes.get("radial", self.radial)
        if "precision" in changes and isinstance(radial, RadialMask):
            changes["radial"] = radial.replace(use_sage_attention=False)
        leaves = changes.get("mask_mode", "calibrated") != "calibrated"
        for key, other in (("target_density", "target_error"), ("target_error", "target_density")):
            if leaves or changes.get(other) is not None:
                changes.setdefault(key, None)
        return dataclasses.replace(self, **changes)


def check_config(config: Any) -> None:
    """See that settings are a :class:`PSAConfig`, and no name or mapping.

    Raises:
        ConfigError: they are not.
    """
    check_kind("config", config, PSAConfig, "load_preset(model, preset) gives one, as does PSAConfig(**settings)")


def _gib(key: str, value: Any) -> float:
    """A bound of memory; 0 for None, as both mean that there is none."""
    return number_between(key, 0 if value is None else value, 0.0, _MOST_MEMORY)


def _sim_thresholds(thresholds: Any) -> FrozenMap:
    if not isinstance(thresholds, Mapping):
        raise ConfigError("sim_thresholds", thresholds, "must map x2, x4 and x8 to cosine similarities")
    for key in thresholds:
        if key not in SIM_LEVELS:
            raise ConfigError("sim_thresholds", key, "must be one of x2, x4, x8")
    values = {}
    for key in SIM_LEVELS:
        value = thresholds.get(key, DEFAULT_SIM_THRESHOLDS[key])
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1.0 <= value <= 1.0:
            raise ConfigError(f"sim_thresholds.{key}", value, "must be a cosine similarity from -1 to 1")
        values[key] = float(value)
    return FrozenMap(values)
