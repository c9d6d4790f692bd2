"""What a run keeps from step to step: the recipes that calibration gave heads, level maps, and centroids of clusters.

It goes with the run. Everything that could make two calls unlike (layer, shape, device) is part of the key, so that a
call finds what was kept of it and of nothing else. With the prompt and without it are alike: the first of them in a
step decides for both (:class:`~psa_core.hosts.place.Place` says why). Of a clip that is sampled window by window, all
windows of a shape share recipes, and each has a level map of its own: windows may be others in every step. So are
calls that have a part of the queries each. Copies of a model on several GPUs keep all of it for themselves: their
forwards run in threads at the same time, and neither waits for the other.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..attention.calibrate import given_choice
from ..attention.choose import choose_recipes
from ..attention.errors import relative_error
from ..attention.level_map import LevelMap
from ..attention.recipes import Choice
from ..attention.steps import Attended, make_level_map, sparse_attention, trial_of
from ..attention.trial import Trial, measure_again
from ..ops.backends import choose_backend
from ..ops.reorder.by_content import Centroids
from ..report.on_its_way import OnItsWay
from ..settings.calibration import Calibration
from ..settings.config import PSAConfig
from ..settings.orders import ORDERS_BY_CONTENT
from .given import given_to
from .memory import memory_left
from .place import Place

# GiB of level maps that a run keeps at most, and bytes that a device is left beside them.
MAP_MEMORY = 1.0
SPARE = 1 << 28
# Steps from a choice, or from its being measured again, to its being measured again.
MEASURE_EVERY = 4
# Steps from there until what came of it is acted on: by then the GPU has told, and that it is the same step each time
# makes runs alike.
ACT_AFTER = 2
# Heads choose anew where the error of their layer has grown to so many times what it was.
GROWN = 1.5
# Errors go by density to a power of this or so: -0.3 on the synthetic mix, -0.4 and -0.8 on trained heads.
_BY_DENSITY = -0.5


class Result(NamedTuple):
    """What came of a call.

    Attributes:
        attended: its output and what tells about it.
        map_age: steps since its level map was made.
        chosen: the recipes that heads chose in it; None where they had them.
        measured: squared norms as of ``Choice.spot``, where the error was measured again.
    """

    attended: Attended
    map_age: int = 0
    chosen: Choice | None = None
    measured: torch.Tensor | None = None


@dataclass
class _Chosen:
    """Recipes of one layer.

    Attributes:
        choice: the recipe of each head.
        before, measured_at: ``Choice.spot``, and the last step in which such was measured.
        again: the same measured later, until it is acted on.
        density, density_again: those that were asked for where these were measured; None with a target error.
    """

    choice: Choice | None = None
    before: OnItsWay | None = None
    measured_at: int = 0
    again: OnItsWay | None = None
    density: float | None = None
    density_again: float | None = None

    @property
    def bound(self) -> float:
        """From how many times the error before heads choose anew, beside what another density has to do with it."""
        if self.density is None or self.density_again is None:
            return GROWN
        return GROWN * (self.density_again / self.density) ** _BY_DENSITY


class _Map(NamedTuple):
    """A level map, and the recipes and target density that it was made with.

    Attributes:
        age: how many steps it has served since the one that it was made in; steps in which a cache answered for the
            layer are none.
        step: the latest that has asked for it.
    """

    level_map: LevelMap
    age: int
    step: int
    choice: Choice | None
    density: float | None

    @property
    def nbytes(self) -> int:
        return self.level_map.nbytes

    @property
    def device(self) -> torch.device:
        return self.level_map.levels.device


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
    time_calibration: Callable[[torch.device], AbstractContextManager[Any]] = nullcontext
    _chosen: dict[Hashable, _Chosen] = field(default_factory=dict)
    _maps: dict[Hashable, _Map] = field(default_factory=dict)
    # Of each layer, those that ``precision: auto`` leaves unquantised.
    _exact_heads: dict[Hashable, torch.Tensor] = field(default_factory=dict)
    # From which the next map's clusters start: a few kilobytes a head.
    _centroids: dict[Hashable, Centroids] = field(default_factory=dict)
    # Of the step under way: which, and for how many prompts its calls have asked for each map; and of the one before.
    _step: int | None = None
    _asked: Counter[Hashable] = field(default_factory=Counter)
    _asked_before: Counter[Hashable] = field(default_factory=Counter)
    # With several GPUs, ComfyUI runs forwards in threads that share one run.
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
            backend: as of :func:`psa_core.pyramid_sparse_attention`.
            last: whether no later step has sparse calls.
        """
        calibrated = config.mask_mode == "calibrated"
        alone = config.radial is not None and config.radial.decides_alone
        if alone or not (calibrated or config.map_steps > 1 or config.order in ORDERS_BY_CONTENT):
            return Result(self._attend(q, k, v, config, place, backend))
        conditions = place.conditions if q.shape[0] % place.conditions == 0 else 1
        clips = q.shape[0] // conditions
        key = _key(q[:clips], k[:clips], place)
        own_key = key, place.window
        trial = trial_of(
            q[:clips], k[:clips], v[:clips], config, place.grid, place.sinks, None,
            choose_backend(backend, q, k, v), self._centroids.get(own_key),
        )  # fmt: skip
        with self._lock:
            chosen = self._chosen.setdefault(key, _Chosen())
        new_choice = self._choose(chosen, trial, place) if calibrated else None
        served = self._map(own_key, config, place.step, chosen.choice, conditions)
        made = served or _Map(make_level_map(trial, chosen.choice), 0, place.step, chosen.choice, config.target_density)
        attended = self._attend(q, k, v, config, place, backend, made.level_map.repeated(conditions))
        if served is None:
            self._keep(own_key, made, config.map_steps > 1 or conditions == 1)
        if last or config.map_steps == 1:
            self._forget(own_key, last)
        measured = None
        if calibrated and _is_due(chosen, place.step, last):
            with self.time_calibration(q.device):
                measured = measure_again(trial, made.level_map.orders, attended.out[:clips])
            chosen.again, chosen.measured_at = OnItsWay(measured), place.step
            chosen.density_again = made.density
        return Result(attended, made.age, new_choice, measured)

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        config: PSAConfig,
        place: Place,
        backend: str,
        level_map: LevelMap | None = None,
    ) -> Attended:
        """Run a call, in which heads stay unquantised that did in the first of its kind."""
        key = _key(q, k, place)
        call = q, k, v, config, place.grid, place.sinks, None, backend
        exact_heads = self._exact_heads.get(key)
        attended = sparse_attention(*call, level_map=level_map, exact_heads=exact_heads)
        if exact_heads is None and attended.exact_heads is not None:
            self._exact_heads[key] = attended.exact_heads
        return attended

    def _choose(self, chosen: _Chosen, trial: Trial, place: Place) -> Choice | None:
        """Have heads choose their recipes, or take those of a calibration; None where they keep theirs."""
        device = trial.q.device
        if chosen.choice is None:
            given = given_to(self.calibrations, place, trial.q.shape[1])
            if given is not None:
                own = given_choice(given, trial.q, trial.config, place.layer)
                chosen.choice = own.at_density(trial.config.target_density)
            else:
                with self.time_calibration(device):
                    chosen.choice = choose_recipes(trial)
                chosen.before = OnItsWay(chosen.choice.spot)
        else:
            grown = self._grown(chosen, place.step)
            if grown is None:
                return None
            # What a GPU is given without a wait lies in pinned memory.
            entries = (grown.pin_memory() if device.type == "cuda" else grown).to(device, non_blocking=True)
            with self.time_calibration(device):
                chosen.choice = choose_recipes(trial).where(entries, chosen.choice)
            chosen.before = OnItsWay(chosen.choice.spot)
        chosen.measured_at, chosen.density = place.step, trial.config.target_density
        return chosen.choice

    def _grown(self, chosen: _Chosen, step: int) -> torch.Tensor | None:
        """Of which batch entries the error has grown, bool ``[B]``; None for none, or before it is time to ask."""
        if chosen.again is None or chosen.before is None or step < chosen.measured_at + ACT_AFTER:
            return None
        grown = _of_entries(chosen.again.value()) > chosen.bound * _of_entries(chosen.before.value())
        chosen.again = None
        return grown if grown.any() else None

    def _map(self, key: Hashable, config: PSAConfig, step: int, choice: Choice | None, conditions: int) -> _Map | None:
        """The level map that still serves a call.

        The first call of a step lets go of those that no call of the step before had, as those of the other expert of
        a model or of a window that is gone, and of all where memory has become short.
        """
        with self._lock:
            if step != self._step:
                spared = {device for device in {x.device for x in self._maps.values()} if _is_spared(device)}
                wanted = _Wanted(self._asked)
                self._maps = {at: x for at, x in self._maps.items() if at in wanted and x.device in spared}
                self._centroids = {at: x for at, x in self._centroids.items() if at in wanted}
                self._step, self._asked, self._asked_before = step, Counter(), self._asked
            self._asked[key] += conditions
            found = self._maps.pop(key, None)
            if found is None or found.choice is not choice or found.step > step:
                return None
            found = found._replace(age=found.age + (found.step < step), step=step)
            if found.age >= config.map_steps:
                return None
            self._maps[key] = found
            return found

    def _keep(self, key: Hashable, made: _Map, again: bool) -> None:
        """Keep the centroids that a map was made with, and, if it is wanted again and there is room, the map."""
        with self._lock:
            if made.level_map.centroids is not None:
                self._centroids[key] = made.level_map.centroids
            kept = sum(x.nbytes for x in self._maps.values())
            if again and kept + made.nbytes <= self.map_memory * 2**30 and _is_spared(made.device):
                self._maps[key] = made

    def _forget(self, key: Hashable, last: bool) -> None:
        """Let go of a map that was asked for as often as in the step before, and will not be again; of its centroids
        where no other map will be made."""
        with self._lock:
            if self._asked[key] >= self._asked_before[key] > 0:
                self._maps.pop(key, None)
                if last:
                    self._centroids.pop(key, None)


class _Wanted:
    """Which of the keys that are kept may be asked for again, going by those that the latest step has asked for.

    Of a layer that has had no call at all, while others of its model had, a cache has answered for the layer.
    """

    def __init__(self, asked: Iterable[Any]) -> None:
        self._asked = set(asked)
        self._layers = {key[:2] for key, _ in self._asked}
        self._models = {model for model, _ in self._layers}

    def __contains__(self, at: Any) -> bool:
        model, layer, *_ = at[0]
        return at in self._asked or (model in self._models and (model, layer) not in self._layers)


def _is_spared(device: torch.device) -> bool:
    """Whether a device has memory enough beside level maps."""
    return memory_left(device) > SPARE


def _key(q: torch.Tensor, k: torch.Tensor, place: Place) -> Hashable:
    model = place.expert, place.replica
    where = model, place.layer, place.condition, place.grid, place.sinks, place.reference_frames
    return (*where, q.shape, k.shape, q.dtype, q.device)


def _is_due(chosen: _Chosen, step: int, last: bool) -> bool:
    """Whether to measure again: every few steps, and in the last, so that runs of few steps report an error too."""
    return step >= chosen.measured_at + (1 if last else MEASURE_EVERY)


def _of_entries(spot: torch.Tensor) -> torch.Tensor:
    """The error of each batch entry, ``[B]``, from squared norms ``[2, B, H]``."""
    wrong, right = spot.sum(-1)
    return relative_error(wrong, right)
