"""Targets, the jobs that measure them, and whether a run met them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psa_core.apps.bench.cases import COGVIDEOX, COGVIDEOX_1_5, DENSITY, WAN_14B, WAN_720P, Case
from psa_core.apps.bench.jobs import Job
from psa_core.apps.bench.ours import BLOCK_NS, IMPORTANCE, SETTINGS, Setting
from psa_core.apps.bench.results import PSA, WHOLE_OP, Row
from psa_core.settings.config import PSAConfig

from .op.cases import FIRST_CALL_PART, LENGTH_PART, MODEL_PART, STAGES_PART, length_cases
from .op.parts import LATER_CALL, SECOND_CALL, benchmark_jobs
from .op.stages import KERNEL, LEVEL_1_SUFFIX


@dataclass(frozen=True)
class Target:
    """A figure that a run should reach.

    Attributes:
        name: the figure in words.
        part: of the benchmark that measures it.
        figure: takes the run's rows; None when they do not tell.
        bound: what to reach, in ``unit``.
        at_least: whether the bound is a lower one.
    """

    name: str
    part: str
    figure: Callable[[Sequence[Any]], float | None]
    bound: float
    unit: str = "x"
    at_least: bool = True

    def line(self, rows: Sequence[Any]) -> tuple[str, str, str, str]:
        """Name, target, measured, and met, missed or not measured."""
        value = self.figure(rows)
        target = f"{'>=' if self.at_least else '<='} {self.bound:.2f}{self.unit}"
        if value is None:
            return self.name, target, "", "not measured"
        met = value >= self.bound if self.at_least else value <= self.bound
        return self.name, target, f"{value:.2f}{self.unit}", "met" if met else "missed"


def find(rows: Iterable[Row], **fields: object) -> Row | None:
    """The first row of ours with these fields."""
    return next((row for row in rows if row.attention == PSA and _fits(row, fields)), None)


def target_table(rows: Sequence[Any], targets: Sequence[Target]) -> str:
    """One line a target."""
    lines = [("target of", "target", "measured", ""), *(target.line(rows) for target in targets)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(x, widths, strict=True)).rstrip() for x in lines)


def _fits(row: Row, fields: dict[str, object]) -> bool:
    return all(getattr(row, name) == value for name, value in fields.items())


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
        found = [row for row in rows if _fits(row, {**fields, "attention": PSA, "density": density})]
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
)
MODEL_TARGETS = tuple(_model(WAN_720P.name, importance, 2.2) for importance in IMPORTANCE)


def target_jobs() -> list[Job]:
    """What the targets ask for and nothing else: no rivals, one length a head size."""
    jobs = {(job.part, job.case): job for job in benchmark_jobs((FIRST_CALL_PART, LENGTH_PART, STAGES_PART))}
    shortest: dict[tuple[int, int], Case] = {}
    for case in length_cases():
        if case.tokens >= PSAConfig().min_tokens:
            shortest.setdefault((case.heads, case.head_dim), case)
    wanted = [
        (FIRST_CALL_PART, WAN_720P),
        *((LENGTH_PART, case) for case in shortest.values()),
        *((STAGES_PART, case) for case, _ in SPEED_BOUNDS),
    ]
    return [jobs[part_and_case] for part_and_case in wanted]
