"""What a run did: density by step and layer, and why calls stayed dense."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, NamedTuple

import torch


class SparseCall(NamedTuple):
    """One attention call that ran sparse.

    Attributes:
        step: denoising step, 0 for the first of the whole denoising.
        layer: transformer block.
        density: share of dense attention's FLOPs.
    """

    step: int
    layer: int
    density: float


class AttentionError(NamedTuple):
    """How far the output of one sparse call is from dense attention on the same queries, keys and values.

    Attributes:
        step, layer: as of :class:`SparseCall`.
        error: norm of the difference by the norm of the dense output.
    """

    step: int
    layer: int
    error: float


class Report:
    """Counts of one run. Densities stay on their device until somebody asks, so recording never waits for the GPU.

    Args:
        keep_levels: also keep the level map of every (step, layer), for pictures; memory grows with the run.
    """

    def __init__(self, keep_levels: bool = False) -> None:
        self.dense_reasons: Counter[str] = Counter()
        self.level_maps: dict[tuple[int, int], torch.Tensor] = {}
        self._keep_levels = keep_levels
        self._sparse: list[tuple[int, int, torch.Tensor]] = []
        self._errors: list[tuple[int, int, torch.Tensor]] = []
        # With several GPUs, ComfyUI runs forwards in threads that share one run.
        self._lock = threading.Lock()

    def add_sparse(
        self,
        step: int,
        layer: int,
        density: torch.Tensor,
        levels: torch.Tensor,
        error: torch.Tensor | None = None,
    ) -> None:
        """Count a sparse call.

        Args:
            density: 0-dim.
            levels: the call's level map.
            error: relative error of its output, 0-dim; None where it was not measured.
        """
        with self._lock:
            self._sparse.append((step, layer, density))
            if error is not None:
                self._errors.append((step, layer, error))
            if self._keep_levels:
                self.level_maps[step, layer] = levels

    def add_dense(self, reason: str) -> None:
        """Count a call that ran as it would have without the pack, for ``reason``."""
        with self._lock:
            self.dense_reasons[reason] += 1

    @property
    def sparse_count(self) -> int:
        return len(self._sparse)

    @property
    def dense_count(self) -> int:
        return sum(self.dense_reasons.values())

    def sparse_calls(self) -> list[SparseCall]:
        """Every sparse call in the order they ran. Waits for the GPU."""
        return [SparseCall(*call) for call in _numbers(self._sparse)]

    def attention_errors(self) -> list[AttentionError]:
        """The error of every sparse call in the order they ran; empty where none was measured. Waits for the GPU."""
        return [AttentionError(*call) for call in _numbers(self._errors)]

    def density(self) -> float | None:
        """Mean density of the sparse calls; None without any. Waits for the GPU."""
        calls = self.sparse_calls()
        return sum(call.density for call in calls) / len(calls) if calls else None

    def line(self) -> str:
        """One line for people: density reached, calls sparse and dense, each reason for dense with its count."""
        density = self.density()
        reached = "PSA: no call ran sparse" if density is None else f"PSA: density {density:.3f}"
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.dense_reasons.most_common())
        dense = f"{self.dense_count} dense" + (f" ({reasons})" if reasons else "")
        return f"{reached} | {self.sparse_count} sparse, {dense}"

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        document = {
            "density": self.density(),
            "sparse_calls": [call._asdict() for call in self.sparse_calls()],
            "dense_calls": dict(self.dense_reasons),
        }
        if self._errors:
            document["attention_errors"] = [error._asdict() for error in self.attention_errors()]
        return document


def _numbers(calls: list[tuple[int, int, torch.Tensor]]) -> list[tuple[int, int, float]]:
    """(step, layer, 0-dim tensor) with the tensors as numbers."""
    scalars = _to_cpu([scalar for _, _, scalar in calls])
    return [(step, layer, float(scalar)) for (step, layer, _), scalar in zip(calls, scalars, strict=True)]


def _to_cpu(scalars: list[torch.Tensor]) -> list[torch.Tensor]:
    """Bring 0-dim tensors to the CPU with one wait a device, in their order."""
    by_device: dict[torch.device, list[int]] = {}
    for i, scalar in enumerate(scalars):
        by_device.setdefault(scalar.device, []).append(i)
    result = list(scalars)
    for places in by_device.values():
        for i, scalar in zip(places, torch.stack([scalars[i] for i in places]).cpu(), strict=True):
            result[i] = scalar
    return result
