"""Level maps that a run keeps from step to step, and centroids, from which the clusters of the next maps start."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import torch

from ..attention.level_map import LevelMap
from ..attention.recipes import Choice
from ..ops.reorder.by_content import Centroids
from .memory import memory_left

# GiB of level maps that a run keeps at most, and bytes that a device is left beside them.
MAP_MEMORY = 1.0
SPARE = 1 << 28


class KeptMap(NamedTuple):
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


class KeptMaps:
    """Those of a run, by what tells its calls apart: the call's key, and the part of the clip that it sees.

    Args:
        memory: GiB that level maps may take; what would go beyond, or leave the device short of memory, is made anew in
            every step.

    Attributes:
        maps: level maps.
        centroids: a few kilobytes a head.
    """

    def __init__(self, memory: float) -> None:
        self.maps: dict[Hashable, KeptMap] = {}
        self.centroids: dict[Hashable, Centroids] = {}
        self._memory = memory
        # Of the step under way: which, and for how many prompts its calls have asked for each map; and of the one
        # before.
        self._step: int | None = None
        self._asked: Counter[Hashable] = Counter()
        self._asked_before: Counter[Hashable] = Counter()
        # With several GPUs, ComfyUI runs forwards in threads that share one run.
        self._lock = threading.Lock()

    def find(self, key: Hashable, map_steps: int, step: int, choice: Choice | None, conditions: int) -> KeptMap | None:
        """The level map that still serves a call.

        The first call of a step lets go of those that no call of the step before had, as those of the other expert of
        a model or of a window that is gone, and of all where memory has become short.
        """
        with self._lock:
            if step != self._step:
                spared = {device for device in {x.device for x in self.maps.values()} if _is_spared(device)}
                wanted = _Wanted(self._asked)
                self.maps = {at: x for at, x in self.maps.items() if at in wanted and x.device in spared}
                self.centroids = {at: x for at, x in self.centroids.items() if at in wanted}
                self._step, self._asked, self._asked_before = step, Counter(), self._asked
            self._asked[key] += conditions
            found = self.maps.pop(key, None)
            if found is None or found.choice is not choice or found.step > step:
                return None
            found = found._replace(age=found.age + (found.step < step), step=step)
            if found.age >= map_steps:
                return None
            self.maps[key] = found
            return found

    def keep(self, key: Hashable, made: KeptMap, again: bool) -> None:
        """Keep the centroids that a map was made with, and, if it is wanted again and there is room, the map."""
        with self._lock:
            if made.level_map.centroids is not None:
                self.centroids[key] = made.level_map.centroids
            kept = sum(x.nbytes for x in self.maps.values())
            if again and kept + made.nbytes <= self._memory * 2**30 and _is_spared(made.device):
                self.maps[key] = made

    def forget(self, key: Hashable, last: bool) -> None:
        """Let go of a map that was asked for as often as in the step before, and will not be again; of its centroids
        where no other map will be made."""
        with self._lock:
            if self._asked[key] >= self._asked_before[key] > 0:
                self.maps.pop(key, None)
                if last:
                    self.centroids.pop(key, None)


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
