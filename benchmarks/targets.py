"""Targets of a run of the benchmark, and the jobs that measure them."""

from __future__ import annotations

from collections.abc import Sequence

from psa_core.apps.bench.cases import COGVIDEOX, COGVIDEOX_1_5, DENSITY, WAN_14B, WAN_720P, Case, chosen_cases
from psa_core.apps.bench.jobs import Job
from psa_core.apps.bench.ours import BLOCK_NS, IMPORTANCE, SETTINGS, Setting
from psa_core.apps.bench.results import PSA, WHOLE_OP, Row
from psa_core.settings.config import PSAConfig

from .op.cases import (
    FIRST_CALL_PART,
    LENGTH_PART,
    MEMORY_PART,
    MODEL_PART,
    PRECISION_CASES,
    PRECISION_PART,
    STAGES_PART,
    WAN_14B_720P,
    length_cases,
)
from .op.parts import LATER_CALL, SECOND_CALL, benchmark_jobs
from .op.stages import KERNEL, LEVEL_1_SUFFIX
from .precision_targets import MEMORY_TARGETS, PRECISION_TARGETS
from .target import Target, find, fits


def _setting(case: Case, importance: str, block_n: int, tail: bool = False) -> dict[str, object]:
    return {
        "part": STAGES_PART,
        "case": case.name,
        "importance": importance,
        "block_n": block_n,
        "density": DENSITY,
        "tail": tail,
    }


def _speed(case: Case, setting: Setting, bound: float) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        row = find(rows, stage=WHOLE_OP, **_setting(case, setting.importance, setting.block_n, setting.tail))
        return row.ratio if row else None

    rest = ", the rest one row a block" if setting.tail else ""
    what = f"n = {setting.block_n}, {setting.importance}{rest}"
    name = f"dense time by whole op, density 0.15, {case.name} ({case.tokens:,}), {what}"
    return Target(name, STAGES_PART, figure, bound)


def _kernel(case: Case) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        setting = _setting(case, IMPORTANCE[0], 128)
        kernel, whole = (find(rows, stage=stage + LEVEL_1_SUFFIX, **setting) for stage in (KERNEL, WHOLE_OP))
        if not (kernel and kernel.ms and whole and whole.reached_density and whole.ratio and whole.ms):
            return None
        return whole.reached_density * whole.ratio * whole.ms / kernel.ms

    name = f"density x dense time by kernel, level 1 only, {case.name} ({case.tokens:,}), n = 128"
    return Target(name, STAGES_PART, figure, 0.85)


def _overhead(case: Case, importance: str, block_n: int) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        setting = _setting(case, importance, block_n)
        kernel, whole = find(rows, stage=KERNEL, **setting), find(rows, stage=WHOLE_OP, **setting)
        if not (kernel and whole and kernel.ms is not None and whole.ms):
            return None
        return 100 * (1 - kernel.ms / whole.ms)

    name = f"share of the op that is not the kernel, {case.name} ({case.tokens:,}), n = {block_n}, {importance}"
    return Target(name, STAGES_PART, figure, 15.0, " %", at_least=False)


def _memory(case: Case, importance: str, block_n: int) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        row = find(rows, stage=WHOLE_OP, **_setting(case, importance, block_n))
        return row.extra_memory if row else None

    name = f"extra peak memory by k and v, {case.name} ({case.tokens:,}), n = {block_n}, {importance}"
    return Target(name, STAGES_PART, figure, 1.25, at_least=False)


def _short_clips(heads: int, head_dim: int, importance: str, density: float) -> Target:
    least = PSAConfig().min_tokens

    def figure(rows: Sequence[Row]) -> float | None:
        fields = {"part": LENGTH_PART, "heads": heads, "head_dim": head_dim, "importance": importance}
        found = [row for row in rows if fits(row, {**fields, "attention": PSA, "density": density})]
        long_enough = [row for row in found if row.tokens >= least]
        return min(long_enough, key=lambda row: row.tokens).ratio if long_enough else None

    name = f"dense time by whole op from min_tokens ({least:,}) on, density {density:g}, {heads} heads of {head_dim}, "
    return Target(name + importance, LENGTH_PART, figure, 1.0)


def _second_call() -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        second, later = (find(rows, part=FIRST_CALL_PART, stage=stage) for stage in (SECOND_CALL, LATER_CALL))
        return second.ms / later.ms if second and later and second.ms and later.ms else None

    return Target(
        "second call by later ones: all is compiled in the first", FIRST_CALL_PART, figure, 1.5, at_least=False
    )


def _model(name: str, importance: str, bound: float) -> Target:
    def figure(rows: Sequence[Row]) -> float | None:
        row = find(rows, part=MODEL_PART, case=name, importance=importance)
        return row.ratio if row else None

    return Target(f"dense time by PSA's, a forward pass of {name}, {importance}", MODEL_PART, figure, bound)


SPEED_BOUNDS = ((WAN_720P, 5.0), (WAN_14B, 4.5), (COGVIDEOX_1_5, 4.5), (COGVIDEOX, 4.0))
TARGETS = (
    *(_speed(case, setting, bound) for case, bound in SPEED_BOUNDS for setting in SETTINGS),
    *(_kernel(case) for case, _ in SPEED_BOUNDS),
    *(_overhead(case, importance, n) for case, _ in SPEED_BOUNDS for n in BLOCK_NS for importance in IMPORTANCE),
    *(_memory(case, importance, n) for case, _ in SPEED_BOUNDS for n in BLOCK_NS for importance in IMPORTANCE),
    *(
        _short_clips(heads, head_dim, importance, density)
        for heads, head_dim in ((12, 128), (40, 128), (48, 64))
        for density in (0.15, 0.4)
        for importance in IMPORTANCE
    ),
    _second_call(),
    *PRECISION_TARGETS,
    *MEMORY_TARGETS,
)
MODEL_TARGETS = tuple(_model(WAN_720P.name, importance, 2.2) for importance in IMPORTANCE)


def target_jobs(names: Sequence[str] | None = None) -> list[Job]:
    """What the targets ask for and nothing else: no rivals, one length a head size.

    Args:
        names: (parts of) names of cases to keep.

    Raises:
        ConfigError: a name fits no case.
    """
    parts = (FIRST_CALL_PART, LENGTH_PART, STAGES_PART, PRECISION_PART, MEMORY_PART)
    jobs = {(job.part, job.case): job for job in benchmark_jobs(parts)}
    shortest: dict[tuple[int, int], Case] = {}
    for case in length_cases():
        if case.tokens >= PSAConfig().min_tokens:
            shortest.setdefault((case.heads, case.head_dim), case)
    wanted = [
        (FIRST_CALL_PART, WAN_720P),
        *((LENGTH_PART, case) for case in shortest.values()),
        *((STAGES_PART, case) for case, _ in SPEED_BOUNDS),
        *((PRECISION_PART, case) for case in PRECISION_CASES),
        (MEMORY_PART, WAN_14B_720P),
    ]
    kept = chosen_cases(names, [case for _, case in wanted], known=[case for _, case in wanted])
    return [jobs[part, case] for part, case in wanted if case in kept]
