"""What a run keeps from step to step: recipes that heads chose (``kept_choice.py``), level maps (``kept_maps.py``).

It goes with the run. Everything that could make two calls unlike (layer, shape, device) is part of the key, so that a
call finds what was kept of it and of nothing else. With the prompt and without it are alike: the first of them in a
step decides for both (:class:`~psa_core.hosts.place.Place` says why). Of a clip that is sampled window by window, all
windows of a shape share recipes, and each has a level map of its own: windows may be others in every step. So are
calls that have a part of the queries each. Copies of a model on several GPUs keep all of it for themselves: their
forwards run in threads at the same time, and neither waits for the other.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ..attention.calibrate import given_choice
from ..attention.level_map import LevelMap
from ..attention.recipes import Choice
from ..attention.steps import Attended, AttentionInfo, make_level_map, sparse_attention, trial_of
from ..attention.trial import Trial
from ..ops.backends import choose_backend
from ..ops.precision import PRECISIONS, precision_that_runs
from ..settings.calibration import Calibration
from ..settings.config import PSAConfig
from ..settings.orders import ORDERS_BY_CONTENT
from .given import given_to
from .kept_choice import KeptChoice, Timed
from .kept_maps import MAP_MEMORY, KeptMap, KeptMaps
from .place import Place


class Result(NamedTuple):
    """What came of a call.

    Attributes:
        attended: its output and what tells about it.
        map_age: steps since its level map was made.
        chosen: the recipes that heads chose in it; None where they had them.
        measured: squared norms as in ``Choice.spot``, where the error was measured again.
    """

    attended: Attended
    map_age: int = 0
    chosen: Choice | None = None
    measured: torch.Tensor | None = None


@dataclass
class Kept:
    """All that a run keeps.

    Attributes:
        map_memory: GiB that level maps may take; what would go beyond, or leave the device short of memory, is made
            anew in every step.
        calibrations: recipes that heads take without choosing, by expert; a call of other heads chooses.
        time_calibration: measures what is done on a device inside its ``with``.
    """

    map_memory: float = MAP_MEMORY
    calibrations: Mapping[int, Calibration] = field(default_factory=dict)
    time_calibration: Timed = nullcontext
    _maps: KeptMaps = field(init=False)
    _choices: dict[Hashable, KeptChoice] = field(default_factory=dict)
    # Of each layer, those that ``precision: auto`` leaves unquantised; measured again with the recipes.
    _exact_heads: dict[Hashable, torch.Tensor] = field(default_factory=dict)
    # With several GPUs, ComfyUI runs forwards in threads that share one run.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._maps = KeptMaps(self.map_memory)

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        config: PSAConfig,
        place: Place,
        backend: str,
        last: bool = False,
    ) -> Result:
        """Run a call with what was kept of it, and keep what the next step can use.

        Args:
            config: settings of the step.
            backend: as in :func:`psa_core.pyramid_sparse_attention`.
            last: whether no later step has sparse calls.
        """
        calibrated = config.mask_mode == "calibrated"
        alone = config.radial is not None and config.radial.decides_alone
        conditions = place.conditions if q.shape[0] % place.conditions == 0 else 1
        if alone or not (calibrated or config.map_steps > 1 or config.order in ORDERS_BY_CONTENT):
            return Result(self._attend(q, k, v, config, place, backend, None, conditions))
        clips = q.shape[0] // conditions
        key = _key(q[:clips], k[:clips], place)
        own_key = key, place.window
        trial = trial_of(
            q[:clips], k[:clips], v[:clips], config, place.grid, place.sinks, None,
            choose_backend(backend, q, k, v), self._maps.centroids.get(own_key),
        )  # fmt: skip
        with self._lock:
            kept = self._choices.setdefault(key, KeptChoice())
        chosen = self._choose(kept, trial, place) if calibrated else None
        choice = kept.choice
        served = self._maps.find(own_key, config.map_steps, place.step, choice, conditions)
        made = served or KeptMap(make_level_map(trial, choice), 0, place.step, choice, config.target_density)
        if chosen is not None:
            self._exact_heads.pop(key, None)
        attended = self._attend(q, k, v, config, place, backend, made.level_map, conditions)
        if served is None:
            self._maps.keep(own_key, made, config.map_steps > 1 or conditions == 1)
        if last or config.map_steps == 1:
            self._maps.forget(own_key, last)
        measured = None
        if calibrated and kept.is_due(place.step, place.steps, last):
            of_map = made.level_map.orders, attended.out[:clips], place.step, made.density
            measured = kept.measure(trial, *of_map, self.time_calibration)
        return Result(attended, made.age, chosen, measured)

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        config: PSAConfig,
        place: Place,
        backend: str,
        level_map: LevelMap | None = None,
        conditions: int = 1,
    ) -> Attended:
        """Run a call, in which heads stay unquantised that did in the first of its kind.

        Args:
            level_map: of the first of the prompts that stand side by side; None for each prompt's own.
            conditions: how many these are.
        """
        clips = q.shape[0] // conditions
        key = _key(q[:clips], k[:clips], place)
        exact_heads = self._exact_heads.get(key)

        def run(batch: slice, prompts: int) -> Attended:
            call = q[batch], k[batch], v[batch], config, place.grid, place.sinks, None, backend
            maps = None if level_map is None else level_map.repeated(prompts)
            exact = None if exact_heads is None else exact_heads.repeat(prompts, 1)
            return sparse_attention(*call, level_map=maps, exact_heads=exact)

        if exact_heads is None and conditions > 1 and _measures_precision(q, k, v, config, backend):
            # What the first prompt says holds for all.
            first = run(slice(clips), 1)
            assert first.exact_heads is not None
            exact_heads = self._exact_heads[key] = first.exact_heads
            return _side_by_side(first, run(slice(clips, None), conditions - 1), conditions)
        attended = run(slice(None), conditions)
        if exact_heads is None and attended.exact_heads is not None:
            self._exact_heads[key] = attended.exact_heads
        return attended

    def _choose(self, kept: KeptChoice, trial: Trial, place: Place) -> Choice | None:
        """Have heads choose their recipes, or take those of a calibration; None where they keep theirs."""
        given = given_to(self.calibrations, place, trial.q.shape[1]) if kept.choice is None else None
        if given is None:
            return kept.choose(trial, place.step, self.time_calibration)
        density = trial.config.target_density
        own = given_choice(given, trial.q, trial.config, place.layer)
        return kept.take(own.at_density(density), place.step, density)


def _key(q: torch.Tensor, k: torch.Tensor, place: Place) -> Hashable:
    model = place.expert, place.replica
    where = model, place.layer, place.condition, place.grid, place.sinks, place.reference_frames
    return (*where, q.shape, k.shape, q.dtype, q.device)


def _measures_precision(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig, backend: str) -> bool:
    """Whether a call measures which heads stay unquantised."""
    if config.precision != "auto" or choose_backend(backend, q, k, v) != "triton":
        return False
    return precision_that_runs(config.precision, q.device, q.dtype, q.shape[-1]) != PRECISIONS[0]


def _side_by_side(first: Attended, others: Attended, conditions: int) -> Attended:
    """One call of the first prompt's and that of the others."""
    out = torch.cat([x.out.transpose(1, 2) for x in (first, others)]).transpose(1, 2)

    def info() -> AttentionInfo:
        told, more = first.info(), others.info()
        shares = torch.lerp(told.level_shares, more.level_shares, 1 - 1 / conditions)
        return told._replace(levels=torch.cat([told.levels, more.levels]), level_shares=shares)

    return Attended(out, info, first.level_map, first.exact_heads)
