"""What calibration did in a run: the recipes that heads were given, and the errors that were measured later."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import accumulate, chain
from math import fsum, isfinite
from typing import Any, NamedTuple

import torch

from ..settings.calibration import Calibration
from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.recipe import Recipe
from ..settings.sizes import Grid
from ..settings.words import percent
from .fetch import fetch, for_json

_TINY = torch.finfo(torch.float32).tiny


class MeasuredError(NamedTuple):
    """How far a layer's output was from dense attention on two query blocks, in a step after its recipes were chosen.

    Attributes:
        step, layer: where.
        error: norm of the difference by the norm of the dense output, all heads together.
    """

    step: int
    layer: int
    error: float


class Given(NamedTuple):
    """What the heads of one layer were given under one condition.

    Attributes:
        recipes: what there was to choose from.
        of_head, errors: ``[B, H]``: the number of each head's recipe, and the error that it was chosen by.
        target_error: the error that recipes were to keep to; None where they were chosen at a density.
        grid: (frames, height, width) of the video in tokens; None when unknown.
        text_length: text tokens in front of it.
    """

    recipes: tuple[Recipe, ...]
    of_head: torch.Tensor
    errors: torch.Tensor
    target_error: float | None = None
    grid: Grid | None = None
    text_length: int = 0


class Calibrated:
    """Numbers stay on their device until somebody asks, so recording never waits for the GPU.

    Attributes:
        remarks: what people are to be told of it beside the numbers.
    """

    def __init__(self) -> None:
        self._given: dict[tuple[int, int, Hashable], Given] = {}
        self._measured: list[tuple[int, int, torch.Tensor]] = []
        self._asked: set[float] = set()
        self._calls = 0
        self.remarks: list[str] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """To other processes it goes without any GPU's tensors."""
        given = {at: Given(*(_on_cpu(x) for x in each)) for at, each in self._given.items()}
        measured = [(step, layer, squares.cpu()) for step, layer, squares in self._measured]
        state = vars(self) | {"_given": given, "_measured": measured}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        vars(self).update(state)

    @classmethod
    def of(cls, parts: Iterable[Calibrated]) -> Calibrated:
        """One of several runs, whose latest recipes it has."""
        whole = cls()
        for part in parts:
            whole._given |= part._given
            whole._measured += part._measured
            whole._asked |= part._asked
            whole._calls += part._calls
            whole.remarks = list(dict.fromkeys(whole.remarks + part.remarks))
        return whole

    @classmethod
    def of_heads(cls, parts: Sequence[Calibrated]) -> Calibrated:
        """One of processes that share a run's heads, each of which has the next ones."""
        whole = cls()
        for at in parts[0]._given:
            given = [part._given[at] for part in parts if at in part._given]
            # Recipes are numbered on from process to process.
            starts = accumulate((len(each.recipes) for each in given), initial=0)
            whole._given[at] = given[0]._replace(
                recipes=tuple(chain.from_iterable(each.recipes for each in given)),
                of_head=torch.cat([each.of_head + start for each, start in zip(given, starts, strict=False)], dim=1),
                errors=torch.cat([each.errors for each in given], dim=1),
            )
        squares: dict[tuple[int, int, int], list[torch.Tensor]] = {}
        for part in parts:
            met: Counter[tuple[int, int]] = Counter()
            for step, layer, measured in part._measured:
                squares.setdefault((step, layer, met[step, layer]), []).append(measured)
                met[step, layer] += 1
        whole._measured = [(step, layer, torch.cat(heads, dim=2)) for (step, layer, _), heads in squares.items()]
        whole._asked = set().union(*(part._asked for part in parts))
        whole._calls = sum(part._calls for part in parts)
        whole.remarks = list(dict.fromkeys(chain.from_iterable(part.remarks for part in parts)))
        return whole

    def __bool__(self) -> bool:
        return bool(self._given)

    def give(self, expert: int, layer: int, condition: Hashable, given: Given) -> None:
        """Note the recipes that the heads of a layer have from now on.

        Args:
            expert: which of the models of the run, counted from 0.
            condition: what tells calls of the layer in one step apart.
        """
        with self._lock:
            self._given[expert, layer, condition] = given
            self._calls += 1
            if given.target_error is not None:
                self._asked.add(given.target_error)

    def add_measured(self, step: int, layer: int, squares: torch.Tensor) -> None:
        """Note a measurement: squared norms ``[2, B, H]`` of what is wrong in an output, and of what is right."""
        with self._lock:
            self._calls += 1
            self._measured.append((step, layer, squares))

    def add_remark(self, remark: str) -> bool:
        """Note what people are to be told; whether that is news."""
        with self._lock:
            if remark in self.remarks:
                return False
            self.remarks.append(remark)
            return True

    def errors(self) -> list[MeasuredError]:
        """What was measured after recipes were chosen, in the order in which it was. Waits for the GPU."""
        with self._lock:
            wrong_and_right = [squares.sum((1, 2)) for _, _, squares in self._measured]
            places = [(step, layer) for step, layer, _ in self._measured]
        return [
            MeasuredError(step, layer, float((wrong / max(right, _TINY)) ** 0.5))
            for (step, layer), (wrong, right) in zip(places, fetch(wrong_and_right), strict=True)
        ]

    def error(self) -> float | None:
        """The mean of :meth:`errors`; None without any. Waits for the GPU."""
        errors = [measured.error for measured in self.errors()]
        return fsum(errors) / len(errors) if errors else None

    def asked_errors(self) -> list[float]:
        """The errors that recipes were to keep to, the smallest first; of one model one at most."""
        with self._lock:
            return sorted(self._asked)

    def error_words(self) -> str:
        """The error measured beside the one asked for, for people; empty where there is neither. Waits for the GPU."""
        error = self.error()
        asked = " and ".join(f"{100 * each:.6g} %" for each in self.asked_errors())
        if error is None:
            return f"error not measured (asked {asked})" if asked else ""
        return f"error {percent(error)}" + (f" (asked {asked})" if asked else "")

    @property
    def calls(self) -> int:
        """How many calls were given recipes or had their error measured."""
        return self._calls

    @property
    def experts(self) -> list[int]:
        """The models of the run that were calibrated."""
        with self._lock:
            return sorted({expert for expert, _, _ in self._given})

    def heads(self, expert: int = 0) -> dict[int, list[tuple[Recipe, float]]]:
        """Recipe and error of every head of a model, by layer. Waits for the GPU.

        Each clip of a batch chooses for itself; a head gets the recipe of the one whose error is the largest, as it is
        there that the choice matters most. An error that is no number is the largest.
        """
        return {
            layer: [max(chain.from_iterable(head), key=_by_error) for head in zip(*map(_by_head, given), strict=True)]
            for layer, given in self._by_layer(expert).items()
        }

    def calibration(self, config: PSAConfig, model: str = "", expert: int = 0) -> Calibration:
        """The recipe of every layer and head of a model, as in :meth:`heads`. Waits for the GPU.

        Args:
            config: settings of the run.
            model: as in :class:`~psa_core.settings.calibration.Calibration`.
            expert: which model it is.

        Raises:
            ConfigError: no layer of it was calibrated, or one had queries, keys or values that are no finite numbers.
        """
        by_layer = self._by_layer(expert)
        if not by_layer:
            calibrates = config.mask_mode == "calibrated"
            why = "no call has run sparse, as its report says" if calibrates else "must be calibrated"
            raise ConfigError("mask_mode", config.mask_mode, f"{why}: nothing was chosen in it")
        recipes, errors = {}, {}
        for layer, heads in self.heads(expert).items():
            recipes[layer] = [recipe for recipe, _ in heads]
            errors[layer] = [error for _, error in heads]
            _check_finite(layer, errors[layer])
        latest = [*by_layer.values()][-1][-1]
        return Calibration(
            block_m=config.block_m,
            block_n=config.block_n,
            recipes=recipes,
            errors=errors,
            target_density=config.target_density,
            target_error=config.target_error,
            tile_size=config.tile_size,
            model=model,
            grid=latest.grid,
            text_length=latest.text_length,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: how many heads of each layer have which recipe, the errors asked for, and those measured later,
        null where they are no numbers; ``remarks`` where there are any."""
        layers = {}
        for layer, conditions in self._by_layer().items():
            heads = chain.from_iterable(map(_by_head, conditions))
            counts = Counter(recipe.name for recipe, _ in chain.from_iterable(heads))
            layers[str(layer)] = dict(counts.most_common())
        measured = [error._asdict() | {"error": for_json(error.error)} for error in self.errors()]
        document = {"recipes": layers, "asked_errors": self.asked_errors(), "measured_errors": measured}
        return document | ({"remarks": list(self.remarks)} if self.remarks else {})

    def _by_layer(self, only: int | None = None) -> dict[int, list[Given]]:
        """What each layer was given, under all conditions, of one expert or of all."""
        with self._lock:
            given = [(key, value) for key, value in self._given.items() if only in (None, key[0])]
        layers: dict[int, list[Given]] = {layer: [] for layer in sorted(layer for (_, layer, _), _ in given)}
        for (_, layer, _), under_condition in given:
            layers[layer].append(under_condition)
        return layers


def _by_error(chosen: tuple[Recipe, float]) -> tuple[bool, float]:
    """Sort key of recipes with their errors."""
    return not isfinite(chosen[1]), chosen[1]


def _check_finite(layer: int, errors: Iterable[float]) -> None:
    """See that a layer's heads could be compared."""
    if not all(map(isfinite, errors)):
        allowed = (
            "attention there had queries, keys or values that are NaN or infinite, so nothing can be chosen by their "
            "errors: sample in bfloat16 or float32 if the model overflows in float16, and calibrate anew"
        )
        raise ConfigError(f"layer {layer}", "errors that are not numbers", allowed)


def _by_head(given: Given) -> list[list[tuple[Recipe, float]]]:
    """Recipe and error of every batch entry, head by head."""
    numbers, errors = given.of_head.T.tolist(), given.errors.T.tolist()
    return [
        [(given.recipes[number], error) for number, error in zip(*head, strict=True)]
        for head in zip(numbers, errors, strict=True)
    ]


def _on_cpu(x: Any) -> Any:
    return x.cpu() if isinstance(x, torch.Tensor) else x
