"""Targets of speed and memory. Numbers here are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.op.cases import WAN_14B_720P
from benchmarks.op.precisions import ADDED, KEPT
from benchmarks.op.stages import KERNEL, LEVEL_1_SUFFIX
from benchmarks.target import Target, target_table
from benchmarks.targets import MODEL_TARGETS, TARGETS, target_jobs
from psa_core import PSAConfig
from psa_core.apps.bench import measure
from psa_core.apps.bench.cases import WAN_720P
from psa_core.apps.bench.ours import Setting
from psa_core.apps.bench.results import WHOLE_OP, Machine, Results, Row
from psa_core.apps.bench.rivals import CUDNN
from psa_core.apps.cli import main

from ..support.bench_results import MACHINE, made_up_results


def test_targets_are_met_missed_or_not_measured() -> None:
    rows = made_up_results().rows
    at_most = Target("work", "cases", lambda rows: 3.0, 2.5, " %", at_least=False)
    assert at_most.line(rows) == ("work", "<= 2.50 %", "3.00 %", "missed")
    assert Target("speed", "cases", lambda rows: 3.0, 2.5).line(rows)[-1] == "met"
    assert Target("speed", "cases", lambda rows: None, 2.5).line(rows)[2:] == ("", "not measured")
    lines = target_table(rows, TARGETS).splitlines()
    assert len(lines) == 1 + len(TARGETS)
    (speed,) = (line for line in lines if "density 0.15, Wan 1.3B" in line and "n = 128, mean  " in line)
    assert speed.split()[-3:] == ["5.00x", "4.00x", "missed"]
    (overhead,) = (line for line in lines if "not the kernel, Wan 1.3B" in line and "128, mean" in line)
    assert overhead.split()[-3:] == ["20.00", "%", "missed"]
    assert [target.line(rows)[-1] for target in MODEL_TARGETS] == ["met", "not measured"]


def test_kernel_target_weighs_time_by_density() -> None:
    row = Setting("mean").row("stages", WAN_720P).replace(reached_density=0.16)
    whole = row.replace(stage=WHOLE_OP + LEVEL_1_SUFFIX, ms=8.0, ratio=5.0)
    kernel = row.replace(stage=KERNEL + LEVEL_1_SUFFIX, ms=6.4)
    (line,) = (
        line for line in target_table([whole, kernel], TARGETS).splitlines() if "1.00x" in line and "met" in line
    )
    assert line.startswith("density x dense time by kernel, level 1 only, Wan 1.3B")


def test_kept_maps_and_bounded_memory_have_targets() -> None:
    row = Setting("mean", density=0.08, precision="int8").row("precision", WAN_720P)
    dense = Row.of("precision", WAN_720P, CUDNN, ms=43.0)
    kept = row.replace(stage=KEPT, ms=4.0)
    added = row.replace(stage=ADDED, error=0.012)
    big = Setting("sampled_max", precision="int8").row("memory", WAN_14B_720P)
    free, bounded = big.replace(ms=100.0, extra_memory=1.8), big.replace(ms=104.0, extra_memory=0.5, max_extra_memory=1)
    rows = [dense, row.replace(ms=8.0), kept, added, free, bounded]
    lines = [target.line(rows)[1:] for target in TARGETS]
    assert [line for line in lines if line[-1] != "not measured"] == [
        (">= 9.00x", "8.60x", "missed"),
        ("<= 0.02", "0.01", "met"),
        ("<= 5.00 %", "4.00 %", "met"),
        ("<= 1.00 GiB", "0.72 GiB", "met"),
    ]


def test_target_jobs_measure_every_target() -> None:
    jobs = target_jobs()
    assert {target.part for target in TARGETS} <= {job.part for job in jobs}
    clips = [job.case for job in jobs if job.part == "length"]
    assert {(case.heads, case.head_dim) for case in clips} == {(12, 128), (40, 128), (48, 64)}
    assert all(case.tokens >= PSAConfig().min_tokens for case in clips)
    names = [target.name for target in (*TARGETS, *MODEL_TARGETS)]
    assert len(names) == len(set(names))


def test_target_jobs_of_some_cases() -> None:
    jobs = target_jobs(["14B 720p", "40 heads"])
    assert [(job.part, job.case.name) for job in jobs] == [
        ("length", "40 heads of 128"),
        ("memory", "Wan 14B 720p 81f"),
    ]


def test_the_command_measures_prints_and_keeps_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    results = made_up_results()
    asked = []
    monkeypatch.setattr(measure, "run_jobs", lambda jobs, quick, _: asked.extend(jobs) or results.rows)
    monkeypatch.setattr(Machine, "here", lambda: MACHINE)
    file = tmp_path / "Imaginary_GPU-targets-quick.json"
    assert main(["bench", "--targets", "--quick", "--output", str(tmp_path)]) == 0
    assert [(job.part, job.case) for job in asked] == [(job.part, job.case) for job in target_jobs()]
    told = f"{results.caption()}\n\n{target_table(results.rows, TARGETS)}\n\nresults are in {file}\n"
    assert capsys.readouterr().out == told
    assert Results.load(file) == results
