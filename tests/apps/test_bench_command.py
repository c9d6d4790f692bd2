"""The command ``psa bench`` away from a checkout."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from psa_core.apps.bench import checkout, measure
from psa_core.apps.bench.checkout import source_digest
from psa_core.apps.bench.checks import WrongResultError
from psa_core.apps.bench.jobs import Job, op_jobs
from psa_core.apps.bench.ours import SETTINGS
from psa_core.apps.bench.results import PSA, Machine, Results, Row
from psa_core.apps.bench.rivals import CUDNN
from psa_core.apps.bench.table import tables
from psa_core.apps.bench.unfinished import is_unfinished
from psa_core.apps.cli import main

from ..support.bench_results import MACHINE, made_up_results


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is no checkout and holds the package."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(checkout, "ROOT", folder)
    return folder


@pytest.mark.parametrize("arguments", [[], ["--quick", "--cases", "CogVideoX"]])
def test_without_a_gpu_it_is_one_line_and_exit_code_2(
    arguments: list[str], capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--output", str(tmp_path / "results"), *arguments]) == 2
    assert capsys.readouterr() == ("", "psa: psa bench needs a CUDA GPU, and torch sees none here\n")
    assert not (tmp_path / "results").exists()


def test_a_wrong_result_is_exit_code_1(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(*_):
        raise WrongResultError("PSA: wrong result")

    monkeypatch.setattr(measure, "run_jobs", wrong)
    assert main(["bench", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", "psa: PSA: wrong result\n")


class CutOff(BaseException):
    """What ends a process between two of its lines."""


class Runs:
    """Runs of some jobs on a machine that is not there, which measure nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.jobs, self.folder, self.measured, self.machine = op_jobs(), folder, [], MACHINE
        self.stop: tuple[int, type[BaseException]] | None = None
        monkeypatch.setattr(measure, "gpu", lambda: torch.device("cpu"))
        monkeypatch.setattr(measure, "_run_job", self._measure)
        monkeypatch.setattr(Machine, "here", lambda: self.machine)

    def _measure(self, job: Job, *_: object) -> list[Row]:
        if self.stop is not None and job is self.jobs[self.stop[0]]:
            raise self.stop[1]
        self.measured.append(job)
        return [Row.of(job.part, job.case, CUDNN, ms=float(len(self.measured)), ratio=1.0)]

    def run(self, stop: tuple[int, type[BaseException]] | None = None) -> tuple[Results, Path]:
        """Results and their file; stopped at a job by this error."""
        self.stop = stop
        self.measured.clear()
        return measure.measured(self.jobs, self.folder)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    return Runs(monkeypatch, tmp_path / "results")


class TestARunThatIsCutOff:
    def test_has_printed_and_kept_every_case_before(self, runs: Runs, capsys) -> None:
        with pytest.raises(CutOff):
            runs.run((2, CutOff))
        done = runs.measured[:]
        (file,) = runs.folder.iterdir()
        kept = Results.load(file)
        assert [(row.part, row.case) for row in kept.rows] == [(job.part, job.case.name) for job in done]
        lines = [f"{job.part}: {job.case.name} ({job.case.tokens:,})" for job in done]
        assert capsys.readouterr().out == "".join(
            f"{line}\n  {CUDNN}: {i + 1:.2f} ms\n" for i, line in enumerate(lines)
        )

    def test_is_gone_on_from(self, runs: Runs) -> None:
        with pytest.raises(CutOff):
            runs.run((2, CutOff))
        results, file = runs.run()
        assert runs.measured == runs.jobs[2:]
        assert [(row.part, row.case) for row in results.rows] == [(job.part, job.case.name) for job in runs.jobs]
        assert [row.ms for row in results.rows] == [1, 2, *range(1, len(runs.jobs) - 1)]
        assert list(runs.folder.iterdir()) == [file]
        assert Results.load(file) == results
        runs.run()
        assert runs.measured == runs.jobs, "it was finished"

    @pytest.mark.parametrize("other", [{"gpu": "Another GPU"}, {"source": "abc"}, {"torch": "9.9"}])
    def test_is_not_gone_on_from_by_another_machine_or_code(self, runs: Runs, other: dict[str, str]) -> None:
        with pytest.raises(CutOff):
            runs.run((2, CutOff))
        (file,) = runs.folder.iterdir()
        runs.machine = dataclasses.replace(MACHINE, date="2000-01-02", **other)
        (runs.folder / "Another_GPU.unfinished.json").write_bytes(file.read_bytes())
        runs.run()
        assert runs.measured == runs.jobs

    def test_by_ctrl_c_says_what_it_has(self, runs: Runs) -> None:
        with pytest.raises(KeyboardInterrupt):
            runs.run((0, KeyboardInterrupt))
        results, file = runs.run((2, KeyboardInterrupt))
        assert is_unfinished(file)
        assert Results.load(file) == results
        assert len(results.rows) == 2
        results, file = runs.run()
        assert not is_unfinished(file)
        assert len(results.rows) == len(runs.jobs)


def test_code_has_a_digest_that_changes_with_it(installed: Path) -> None:
    source_digest.cache_clear()
    before = source_digest()
    source_digest.cache_clear()
    assert source_digest() == before
    for file in ("pyproject.toml", "benchmarks/command.py"):
        (installed / file).parent.mkdir(exist_ok=True)
        (installed / file).touch()
    source_digest.cache_clear()
    assert source_digest() != before
    source_digest.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "Imaginary_GPU"),
        (["--quick"], "Imaginary_GPU-quick"),
        (["--cases", "Wan 14B", "--quick"], "Imaginary_GPU-Wan_14B-quick"),
    ],
)
def test_it_measures_the_op_and_keeps_results_as_json(
    arguments: list[str], name: str, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, asked = made_up_results(), []
    monkeypatch.setattr(measure, "run_jobs", lambda jobs, quick, _: asked.extend([*jobs, quick]) or results.rows)
    monkeypatch.setattr(Machine, "here", lambda: MACHINE)
    file = tmp_path / f"{name}.json"
    assert main(["bench", "--output", str(tmp_path), *arguments]) == 0
    quick = "--quick" in arguments
    wanted = [job for job in op_jobs(quick=quick) if "--cases" not in arguments or "Wan 14B" in job.case.name]
    assert [(job.part, job.case) for job in asked[:-1]] == [(job.part, job.case) for job in wanted]
    assert asked[-1] == quick
    assert capsys.readouterr().out == f"{tables(results)}\n\nresults are in {file}\n"
    assert Results.load(file) == results


@pytest.mark.parametrize("option", ["targets", "model", "quality", "study", "only", "table", "plot"])
@pytest.mark.parametrize("files", [(), ("benchmarks/command.py",), ("pyproject.toml",)])
def test_what_engineers_measure_needs_a_checkout(option: str, files: tuple[str, ...], capsys, installed: Path) -> None:
    for file in files:
        (installed / file).parent.mkdir(exist_ok=True)
        (installed / file).touch()
    value = ["masks"] if option in ("only", "table", "plot") else []
    assert main(["bench", f"--{option}", *value]) == 2
    needs = f"psa: psa bench --{option} needs a checkout of the repository, with benchmarks/ in it\n"
    assert capsys.readouterr() == ("", needs)


@pytest.mark.gpu
def test_quick_run_of_a_small_case(capsys, tmp_path: Path) -> None:
    assert main(["bench", "--quick", "--cases", "CogVideoX-5B", "--output", str(tmp_path)]) == 0
    assert "CogVideoX-5B (17,776)" in capsys.readouterr().out
    (file,) = tmp_path.glob("*.json")
    ours = [row for row in Results.load(file).rows if row.attention == PSA]
    assert {(row.importance, row.block_n, row.tail) for row in ours} == {
        (x.importance, x.block_n, x.tail) for x in SETTINGS
    }
    assert all(row.ms and row.host_ms and row.ratio and row.error is not None for row in ours)
