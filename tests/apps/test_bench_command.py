"""The command ``psa bench`` away from a checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from psa_core.apps.bench import checkout, measure
from psa_core.apps.bench.checks import WrongResultError
from psa_core.apps.bench.jobs import Job, op_jobs
from psa_core.apps.bench.ours import SETTINGS
from psa_core.apps.bench.results import PSA, Machine, Results, Row
from psa_core.apps.bench.table import tables
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


@pytest.mark.parametrize("done", [0, 2])
def test_an_interrupt_keeps_what_was_measured(done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, rows = op_jobs(), made_up_results().rows

    def measured(job: Job, *_: object) -> list[Row]:
        if job is jobs[done]:
            raise KeyboardInterrupt
        return [rows[0]]

    monkeypatch.setattr(measure, "gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr(measure, "_run_job", measured)
    if done:
        assert measure.run_jobs(jobs) == [rows[0]] * done
    else:
        with pytest.raises(KeyboardInterrupt):
            measure.run_jobs(jobs)


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
    monkeypatch.setattr(measure, "run_jobs", lambda jobs, quick: asked.extend([*jobs, quick]) or results.rows)
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
