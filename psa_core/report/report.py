"""What a run did: density and levels by step and layer, why calls stayed dense, and the time that attention took."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from .calibrated import Calibrated
from .calls import AttentionError, RecordedCall, Seconds, SparseCall
from .clock import Clock
from .fetch import fetch, for_json
from .shares import by_name, density_of, mean_shares

_MODELS_OWN = "bf16"
_MODEL, _SPARSE, _DENSE, _CALIBRATION = "model", "sparse", "dense", "calibration"


class Report:
    """Counts of one run. Numbers stay on their device until somebody asks, so recording never waits for the GPU.

    Args:
        keep_levels: also keep the level map of every (step, layer), for pictures; memory grows with the run.

    Attributes:
        dense_reasons: how many calls stayed dense for which reason.
        steps, layers: those that self-attention was seen in, sparse or dense.
        calibrated: what calibration did.
        precisions: how many sparse calls ran in which, ``"bf16"`` for that of the model.
        dense_backends: how many dense calls ran in which, where that is not the model's own attention.
        dense_refusals: how many calls the chosen one left to the model's own, by its name and the reason.
        set_aside: names of attention of other nodes that it took the place of.
    """

    def __init__(self, keep_levels: bool = False) -> None:
        self.dense_reasons: Counter[str] = Counter()
        self.level_maps: dict[tuple[int, int], torch.Tensor] = {}
        self.steps: set[int] = set()
        self.layers: set[int] = set()
        self.calibrated = Calibrated()
        self.precisions: Counter[str] = Counter()
        self.dense_backends: Counter[str] = Counter()
        self.dense_refusals: Counter[str] = Counter()
        self.set_aside: set[str] = set()
        self._clock = Clock()
        self._keep_levels = keep_levels
        self._unread: list[RecordedCall] = []
        self._read: list[RecordedCall] = []
        # With several GPUs, ComfyUI runs forwards in threads that share one run.
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """A report goes to other processes in numbers, without level maps. Waits for the GPU."""
        calls, apart = self._calls(), {"_lock", "_unread", "_read", "level_maps"}
        return {**{name: x for name, x in vars(self).items() if name not in apart}, "_read": calls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        vars(self).update(state)

    @classmethod
    def of(cls, reports: Iterable[Report]) -> Report:
        """One report of several runs, such as the parts of a denoising, without level maps. Waits for the GPU."""
        reports, whole = list(reports), cls()
        for report in reports:
            whole.dense_reasons += report.dense_reasons
            whole.steps |= report.steps
            whole.layers |= report.layers
            whole.precisions += report.precisions
            whole.dense_backends += report.dense_backends
            whole.dense_refusals += report.dense_refusals
            whole.set_aside |= report.set_aside
            whole._read += report._calls()
            whole._clock.take_over(report._clock)
        whole.calibrated = Calibrated.of(report.calibrated for report in reports)
        return whole

    def time_model(self, device: torch.device) -> AbstractContextManager[None]:
        """Measure a forward pass of the model."""
        return self._clock.measure(_MODEL, device)

    def time_sparse(self, device: torch.device) -> AbstractContextManager[None]:
        """Measure a sparse call, which :meth:`add_sparse` counts."""
        return self._clock.measure(_SPARSE, device)

    def time_calibration(self, device: torch.device) -> AbstractContextManager[None]:
        """Measure what calibration takes of a sparse call."""
        return self._clock.measure(_CALIBRATION, device)

    def add_sparse(
        self,
        step: int,
        layer: int,
        level_shares: torch.Tensor,
        levels: torch.Tensor,
        error: torch.Tensor | None = None,
        map_age: int = 0,
        precision: str = _MODELS_OWN,
    ) -> None:
        """Count a sparse call.

        Args:
            level_shares: share of block pairs at level 1, 2, 4 ..., ``[n_levels]``; the rest is skipped.
            levels: the call's level map.
            error: relative error of its output, 0-dim; None where it was not measured.
            map_age: steps since the level map was made.
            precision: as in ``AttentionInfo``.
        """
        with self._lock:
            self.steps.add(step)
            self.layers.add(layer)
            self.precisions[precision] += 1
            self._unread.append(RecordedCall(step, layer, level_shares, error, map_age))
            if self._keep_levels:
                self.level_maps[step, layer] = levels

    def add_dense(self, reason: str, step: int | None = None, layer: int | None = None) -> None:
        """Count a call that ran as it would have without the pack, for ``reason``; None for an unknown place."""
        with self._lock:
            self.dense_reasons[reason] += 1
            if step is not None:
                self.steps.add(step)
            if layer is not None:
                self.layers.add(layer)

    def dense_call(
        self, reason: str, device: torch.device, step: int | None = None, layer: int | None = None
    ) -> AbstractContextManager[None]:
        """Count a call as :meth:`add_dense` does, and measure it."""
        self.add_dense(reason, step, layer)
        return self._clock.measure((_DENSE, reason), device)

    def add_dense_backend(self, name: str, set_aside: str = "") -> None:
        """Say of a counted dense call that another attention than the model's own ran it.

        Args:
            set_aside: name of the attention that another node has set; "" for none.
        """
        with self._lock:
            self.dense_backends[name] += 1
            self.set_aside |= {set_aside} - {""}

    def add_dense_refusal(self, name: str, reason: str) -> bool:
        """Say that the chosen attention left a counted dense call to the model's own; whether that is news."""
        with self._lock:
            self.dense_refusals[f"{name}: {reason}"] += 1
            return self.dense_refusals[f"{name}: {reason}"] == 1

    def shares_since(self, start: int) -> list[torch.Tensor]:
        """Shares of block pairs of the sparse calls from the given one on, where they lie. Does not wait."""
        with self._lock:
            return [call.shares for call in self._unread[start:]]

    @property
    def sparse_count(self) -> int:
        return len(self._read) + len(self._unread)

    @property
    def dense_count(self) -> int:
        return sum(self.dense_reasons.values())

    def sparse_calls(self) -> list[SparseCall]:
        """Every sparse call in the order they ran. Waits for the GPU."""
        return [SparseCall(call.step, call.layer, density_of(call.shares)) for call in self._calls()]

    def attention_errors(self) -> list[AttentionError]:
        """The error of every sparse call in the order they ran; empty where none was measured. Waits for the GPU."""
        return [AttentionError(x.step, x.layer, x.error) for x in self._calls() if x.error is not None]

    def density(self) -> float | None:
        """Mean density of the sparse calls; None without any. Waits for the GPU."""
        calls = self.sparse_calls()
        return sum(call.density for call in calls) / len(calls) if calls else None

    def level_shares(self, step: int | None = None) -> dict[int, float]:
        """The share of block pairs at each level, 0 for skipped, as means of the sparse calls. Waits for the GPU.

        Args:
            step: of this step alone; None for the whole run.

        Returns:
            Shares by level, finest first, skipped last; empty without a sparse call.
        """
        return mean_shares([call.shares for call in self._calls() if step in (None, call.step)])

    def map_ages(self) -> dict[int, int]:
        """How many sparse calls had a level map of which age, in steps since it was made."""
        return dict(sorted(Counter(call.map_age for call in (*self._read, *self._unread)).items()))

    def seconds(self) -> Seconds:
        """Where the time went. Waits for the GPU."""
        measured = self._clock.seconds()
        dense = {reason: measured[_DENSE, reason] for reason in self.dense_reasons if (_DENSE, reason) in measured}
        return Seconds(measured.get(_MODEL), measured.get(_SPARSE), dense, measured.get(_CALIBRATION))

    def line(self) -> str:
        """One line for people: of calibrated attention the error measured and asked for, density reached, precision
        where it was not the model's, calls sparse and dense, each reason for dense with its count, and what ran dense
        calls where it was not the model's own attention."""
        density, reached = self.density(), "no call ran sparse"
        if density is not None:
            coarser = [name for name in sorted(self.precisions) if name != _MODELS_OWN]
            reached = ", ".join(filter(None, [self.calibrated.error_words(), f"density {density:.3f}", *coarser]))
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.dense_reasons.most_common())
        dense = f"{self.dense_count} dense" + (f" ({reasons})" if reasons else "")
        return f"PSA: {reached} | {self.sparse_count} sparse, {dense}{self._dense_words()}"

    def _dense_words(self) -> str:
        """What ran dense calls, where it was not the model's own attention throughout."""
        words = [f"{count} by {name}" for name, count in self.dense_backends.most_common()]
        if self.set_aside:
            words.append(f"in place of {' and '.join(sorted(self.set_aside))}")
        words += [f"{count} left to the model's own by {reason}" for reason, count in self.dense_refusals.most_common()]
        return f"; {', '.join(words)}" if words else ""

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON.

        ``density``, and ``sparse_calls`` with the step, layer and density of each; ``level_shares`` by level
        (``"1"``, ``"2"`` ... ``"skipped"``) and the same by step; ``dense_calls``, counts by reason; ``seconds`` in
        the model's forward passes, in attention, in sparse calls and in dense calls by reason, null where they were
        not measured; ``attention_errors`` where they were, null for what is no number; ``map_ages``, counts of sparse
        calls by the age of their level map, where maps were kept; ``precisions``, counts of them by precision, where it
        was not always the model's; ``dense_backends``, ``dense_refusals`` and ``set_aside`` where there are any;
        ``calibrated``, its ``seconds`` and :meth:`Calibrated.as_dict`, where heads were.
        """
        seconds = self.seconds()
        steps = sorted({call.step for call in self._calls()})
        document: dict[str, Any] = {
            "density": self.density(),
            "level_shares": by_name(self.level_shares()),
            "level_shares_by_step": {str(step): by_name(self.level_shares(step)) for step in steps},
            "dense_calls": dict(self.dense_reasons),
            "seconds": {part: getattr(seconds, part) for part in ("model", "attention", "sparse", "dense")},
            "sparse_calls": [call._asdict() for call in self.sparse_calls()],
        }
        errors = self.attention_errors()
        if errors:
            document["attention_errors"] = [error._asdict() | {"error": for_json(error.error)} for error in errors]
        ages = self.map_ages()
        if any(ages):
            document["map_ages"] = {str(age): count for age, count in ages.items()}
        if self.precisions.keys() - {_MODELS_OWN}:
            document["precisions"] = dict(self.precisions)
        for key in ("dense_backends", "dense_refusals"):
            if getattr(self, key):
                document[key] = dict(getattr(self, key))
        if self.set_aside:
            document["set_aside"] = sorted(self.set_aside)
        if self.calibrated:
            document["calibrated"] = {"seconds": seconds.calibration, **self.calibrated.as_dict()}
        return document

    def _calls(self) -> list[RecordedCall]:
        """The sparse calls in numbers, which are fetched once: afterwards nothing of them is left on a device."""
        with self._lock:
            shares = fetch([call.shares for call in self._unread])
            errors = iter(fetch([call.error for call in self._unread if call.error is not None]))
            self._read += [
                call._replace(shares=share, error=None if call.error is None else next(errors))
                for call, share in zip(self._unread, shares, strict=True)
            ]
            self._unread = []
            return self._read


def as_document(models: Sequence[Report]) -> dict[str, Any]:
    """One run as plain data, for JSON: its line and the report of all of it.

    Args:
        models: a report for each model that took part, such as Wan 2.2's two experts; of several, each also stands
            under ``models``.
    """
    whole = Report.of(models)
    document = {"line": whole.line(), **whole.as_dict()}
    if len(models) > 1:
        document["models"] = [{"line": report.line(), **report.as_dict()} for report in models]
    return document
