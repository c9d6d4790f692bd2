"""What a report has of a run: its sparse calls, their errors, and where the time went."""

from __future__ import annotations

from typing import Any, NamedTuple


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
        step, layer: as in :class:`SparseCall`.
        error: norm of the difference by the norm of the dense output.
    """

    step: int
    layer: int
    error: float


class Seconds(NamedTuple):
    """Where the time of a run went; threads on several GPUs add up. None for what was not measured.

    Attributes:
        model: in forward passes of the model, attention and all else.
        sparse: in sparse calls.
        dense: in dense calls, by reason.
        calibration: in choosing recipes and measuring errors, which is part of sparse calls.
    """

    model: float | None
    sparse: float | None
    dense: dict[str, float]
    calibration: float | None = None

    @property
    def attention(self) -> float | None:
        """In attention, sparse and dense."""
        measured = [*self.dense.values()] if self.sparse is None else [self.sparse, *self.dense.values()]
        return sum(measured) if measured else None


class RecordedCall(NamedTuple):
    """A sparse call; tensors until they are read, then numbers."""

    step: int
    layer: int
    shares: Any
    error: Any
    map_age: int
