"""What a run keeps from step to step, by layer and condition: level maps, and the recipes that calibration gave heads.

It goes with the run. Everything that could make two calls unlike (layer, prompt, window, shape, device) is part of the
key, so that a call finds what was kept of it and of nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ..attention.calibrate import given_choice
from ..attention.choose import choose_recipes
from ..attention.recipes import Choice
from ..attention.steps import Attended, LevelMap, sparse_attention, trial_of
from ..attention.trial import Trial, measure_again, relative_error
from ..ops.backends import choose_backend
from ..report.on_its_way import OnItsWay
from ..settings.calibration import Calibration
from ..settings.config import PSAConfig
from .place import Place

# GiB of level maps that a run keeps at most.
MAP_MEMORY = 1.0
# Steps from a choice, or from its being measured again, to its being measured again.
MEASURE_EVERY = 4
# Steps from there until what came of it is acted on: by then the GPU has told, and that it is the same step each time
# makes runs alike.
ACT_AFTER = 2
# Heads choose anew where the error of their layer has grown to so many times what it was.
GROWN = 1.5


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
class _Kept:
    """Of one layer under one condition.

    Attributes:
        level_map, made_at: a level map, and the step that it was made in.
        choice: the recipe of each head.
        before, measured_at: ``Choice.spot``, and the last step in which such was measured.
        again: the same measured later, until it is acted on.
    """

    level_map: LevelMap | None = None
    made_at: int = 0
    choice: Choice | None = None
    before: OnItsWay | None = None
    measured_at: int = 0
    again: OnItsWay | None = None


@dataclass
class Kept:
    """All that a run keeps.

    Attributes:
        map_memory: GiB that level maps may take; what would go beyond is made anew in every step.
        calibration: recipes that heads take without choosing.
    """

    map_memory: float = MAP_MEMORY
    calibration: Calibration | None = None
    _by_place: dict[Hashable, _Kept] = field(default_factory=dict)
    _bytes: int = 0
    # With several GPUs, ComfyUI runs forwards in threads that share one run.
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig, place: Place, backend: str
    ) -> Result:
        """Run a call with what was kept of it, and keep what the next step can use.

        Args:
            config: settings of the step.
            backend: as of :func:`psa_core.pyramid_sparse_attention`.
        """
        call = q, k, v, config, place.grid, place.text_length, None, backend
        calibrated = config.mask_mode == "calibrated"
        alone = config.radial is not None and config.radial.decides_alone
        if alone or (config.map_steps == 1 and not calibrated):
            return Result(sparse_attention(*call))
        kept = self._kept(q, k, place)
        trial = trial_of(q, k, v, config, place.grid, place.text_length, None, choose_backend(backend, q, k, v))
        chosen = self._choose(kept, trial, place) if calibrated else None
        age = place.step - kept.made_at
        level_map = kept.level_map if 0 <= age < config.map_steps else None
        attended = sparse_attention(*call, choice=kept.choice, level_map=level_map)
        self._keep_map(kept, attended.level_map, config, place)
        measured = None
        if calibrated and place.step >= kept.measured_at + MEASURE_EVERY:
            assert attended.level_map is not None
            measured = measure_again(trial, attended.level_map.orders, attended.out)
            kept.again, kept.measured_at = OnItsWay(measured), place.step
        return Result(attended, 0 if level_map is None else age, chosen, measured)

    def _kept(self, q: torch.Tensor, k: torch.Tensor, place: Place) -> _Kept:
        where = place.layer, place.condition, place.grid, place.text_length, place.reference_frames
        key = (*where, q.shape, k.shape, q.dtype, q.device)
        with self._lock:
            return self._by_place.setdefault(key, _Kept())

    def _choose(self, kept: _Kept, trial: Trial, place: Place) -> Choice | None:
        """Have heads choose their recipes, or take those of a calibration; None where they keep theirs."""
        device = trial.q.device
        if kept.choice is None:
            if self.calibration is not None:
                kept.choice = given_choice(self.calibration, trial.q, trial.config, place.layer)
            else:
                kept.choice = choose_recipes(trial)
                kept.before = OnItsWay(kept.choice.spot)
        else:
            grown = self._grown(kept, place.step)
            if grown is None:
                return None
            # What a GPU is given without a wait lies in pinned memory.
            entries = (grown.pin_memory() if device.type == "cuda" else grown).to(device, non_blocking=True)
            kept.choice = choose_recipes(trial).where(entries, kept.choice)
            kept.before = OnItsWay(kept.choice.spot)
            self._forget_map(kept)
        kept.measured_at = place.step
        return kept.choice

    def _grown(self, kept: _Kept, step: int) -> torch.Tensor | None:
        """Of which batch entries the error has grown, bool ``[B]``; None for none, or before it is time to ask."""
        if kept.again is None or kept.before is None or step < kept.measured_at + ACT_AFTER:
            return None
        grown = _of_entries(kept.again.value()) > GROWN * _of_entries(kept.before.value())
        kept.again = None
        return grown if grown.any() else None

    def _keep_map(self, kept: _Kept, level_map: LevelMap | None, config: PSAConfig, place: Place) -> None:
        """Keep a level map that was just made for the steps to come; let go of one that has served."""
        last = place.steps is not None and place.step + 1 >= place.steps
        if level_map is kept.level_map and not last:
            return
        self._forget_map(kept)
        if level_map is None or config.map_steps == 1 or last:
            return
        size = level_map.levels.nbytes
        with self._lock:
            if self._bytes + size > self.map_memory * 2**30:
                return
            self._bytes += size
        kept.level_map, kept.made_at = level_map, place.step

    def _forget_map(self, kept: _Kept) -> None:
        if kept.level_map is not None:
            with self._lock:
                self._bytes -= kept.level_map.levels.nbytes
            kept.level_map = None


def _of_entries(spot: torch.Tensor) -> torch.Tensor:
    """The error of each batch entry, ``[B]``, from squared norms ``[2, B, H]``."""
    wrong, right = spot.sum(-1)
    return relative_error(wrong, right)
