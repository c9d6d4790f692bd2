"""Targets of quantised attention, of kept maps, and of bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

from psa_core.apps.bench.cases import COGVIDEOX, COGVIDEOX_1_5, DENSITY, WAN_14B, WAN_720P, Case
from psa_core.apps.bench.ours import IMPORTANCE
from psa_core.apps.bench.results import WHOLE_OP, Row
from psa_core.apps.bench.rivals import CUDNN
from psa_core.ops.precision import PRECISIONS

from .op.cases import MEMORY_PART, PRECISION_CASES, PRECISION_PART, WAN_14B_720P
from .op.memory import BOUND
from .op.precisions import ADDED, KEPT, PORTABLE_KERNEL
from .op.stages import KERNEL, LEVEL_1_SUFFIX
from .target import Target, find

_QUANTISED = PRECISIONS[1:]
# Steps that a map is kept for.
_STEPS = 4


def _ours(rows: Sequence[Row], case: Case, precision: str, stage: str, **more: object) -> Row | None:
    return find(rows, part=PRECISION_PART, case=case.name, precision=precision, stage=stage, **more)


def _dense_ms(rows: Sequence[Row], case: Case) -> float | None:
    dense = (row for row in rows if (row.part, row.case, row.attention) == (PRECISION_PART, case.name, CUDNN))
    return next((row.ms for row in dense), None)


def _where(case: Case, precision: str, importance: str | None = None) -> str:
    return f"{case.name} ({case.tokens:,}), {precision}" + (f", {importance}" if importance else "")


def _speed(case: Case, density: float, precision: str, importance: str, bound: float) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        setting = {"importance": importance, "density": density}
        made, kept = (_ours(rows, case, precision, stage, **setting) for stage in (WHOLE_OP, KEPT))
        dense = _dense_ms(rows, case)
        if not (made and kept and made.ms and kept.ms and dense):
            return None
        return dense * _STEPS / (made.ms + (_STEPS - 1) * kept.ms)

    what = f"dense time by whole op, density {density:g}, map kept for {_STEPS} steps"
    return Target(f"{what}, {_where(case, precision, importance)}", PRECISION_PART, figure, bound)


def _kernel(case: Case, precision: str) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        row, dense = _ours(rows, case, precision, KERNEL + LEVEL_1_SUFFIX), _dense_ms(rows, case)
        return row.reached_density * dense / row.ms if row and row.ms and row.reached_density and dense else None

    name = f"density x dense time by kernel, level 1 only, n = 128, {_where(case, precision)}"
    return Target(name, PRECISION_PART, figure, 1.1 if case.head_dim == 128 else 1.0)


def _portable(case: Case) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        wide = _ours(rows, case, PRECISIONS[0], PORTABLE_KERNEL + LEVEL_1_SUFFIX)
        quantised = _ours(rows, case, "int8", KERNEL + LEVEL_1_SUFFIX)
        return wide.ms / quantised.ms if wide and wide.ms and quantised and quantised.ms else None

    name = f"portable kernel's time in bf16 by that in int8, level 1 only, {case.name} ({case.tokens:,})"
    return Target(name, PRECISION_PART, figure, 1.3)


def _added(case: Case, precision: str) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        row = _ours(rows, case, precision, ADDED)
        return row.error if row else None

    name = f"error added by quantisation, level 1 only, {_where(case, precision)}"
    return Target(name, PRECISION_PART, figure, 0.02, "", at_least=False)


def _overhead(case: Case, precision: str, importance: str) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        setting = {"importance": importance, "density": DENSITY}
        kernel, kept = (_ours(rows, case, precision, stage, **setting) for stage in (KERNEL, KEPT))
        return 100 * (1 - kernel.ms / kept.ms) if kernel and kernel.ms and kept and kept.ms else None

    name = f"share of the op that is not its kernel, map kept, {_where(case, precision, importance)}"
    return Target(name, PRECISION_PART, figure, 15.0, " %", at_least=False)


def _memory(case: Case, precision: str) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        row = _ours(rows, case, precision, WHOLE_OP, importance=IMPORTANCE[-1], density=DENSITY)
        return row.extra_memory if row else None

    name = f"extra peak memory by k and v, {_where(case, precision)}"
    return Target(name, PRECISION_PART, figure, 1.25, at_least=False)


def _bounded(case: Case, precision: str) -> tuple[Target, Target]:
    """What a bound of the memory costs, and whether it holds."""

    def row_of(rows: Sequence[Row], bound: float | None) -> Row | None:
        fields = {"case": case.name, "precision": precision, "stage": WHOLE_OP, "max_extra_memory": bound}
        return find(rows, part=MEMORY_PART, **fields)

    def time(rows: Sequence[Row]) -> float | None:
        free, bounded = row_of(rows, None), row_of(rows, BOUND)
        return 100 * (bounded.ms / free.ms - 1) if free and free.ms and bounded and bounded.ms else None

    def memory(rows: Sequence[Row]) -> float | None:
        bounded = row_of(rows, BOUND)
        k_and_v = 4 * case.tokens * case.heads * case.head_dim / 2**30
        return bounded.extra_memory * k_and_v if bounded and bounded.extra_memory is not None else None

    what = f"max_extra_memory {BOUND:g}, {_where(case, precision)}"
    return (
        Target(f"more time with {what}", MEMORY_PART, time, 5.0, " %", at_least=False),
        Target(f"extra peak memory with {what}", MEMORY_PART, memory, BOUND, " GiB", at_least=False),
    )


_SPEEDS = ((WAN_720P, 0.08, 9.0), (WAN_14B, DENSITY, 5.5), (COGVIDEOX_1_5, DENSITY, 5.5), (COGVIDEOX, DENSITY, 4.6))
PRECISION_TARGETS = (
    *(_speed(*x[:2], p, name, x[2]) for x in _SPEEDS for p in _QUANTISED for name in IMPORTANCE),
    *(_kernel(case, p) for case in PRECISION_CASES for p in _QUANTISED),
    *(_portable(case) for case in PRECISION_CASES),
    *(_added(case, p) for case in PRECISION_CASES for p in _QUANTISED),
    *(_overhead(case, p, name) for case in PRECISION_CASES for p in PRECISIONS for name in IMPORTANCE),
    *(_memory(case, p) for case in PRECISION_CASES for p in PRECISIONS),
)
MEMORY_TARGETS = tuple(target for p in PRECISIONS for target in _bounded(WAN_14B_720P, p))
