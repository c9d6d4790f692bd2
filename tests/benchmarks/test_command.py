"""The command ``psa bench`` in a checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks.op.stages import BLOCK_LIST, KERNEL, PYRAMID, SELECTION
from benchmarks.op.tables import all_tables
from psa_core.apps.bench import checkout, measure
from psa_core.apps.bench.ours import SETTINGS
from psa_core.apps.bench.results import PSA, WHOLE_OP, Machine, Results
from psa_core.apps.cli import main

from ..support.bench_results import MACHINE, made_up_results


@pytest.mark.parametrize("arguments", [[], ["--targets"], ["--model"], ["--quick", "--only", "cases"]])
def test_without_a_gpu_it_is_one_line_and_exit_code_2(
    arguments: list[str], capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--output", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr() == ("", "psa: psa bench needs a CUDA GPU, and torch sees none here\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--targets", "--only", "cases"], "--only = ['cases']: has no meaning beside --targets"),
        (["--targets", "--cases", "Flux"], "--cases = 'Flux': must be (part of) one of "),
        (
            ["--only", "speed"],
            "--only = 'speed': must be one of first call, cases, field, density, length, ",
        ),
        (["--only", "length", "--cases", "Wan"], "--cases = ['Wan']: leaves nothing to measure"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], error: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "gpu", lambda: torch.device("cpu"))
    assert main(["bench", *arguments]) == 2
    assert f"psa: {error}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "Imaginary_GPU"),
        (["--only", "first call", "masks"], "Imaginary_GPU-first_call-masks"),
        (["--only", "cases", "--cases", "Wan 14B", "--quick"], "Imaginary_GPU-cases-Wan_14B-quick"),
    ],
)
def test_all_parts_are_drawn_and_some_are_not(
    arguments: list[str], name: str, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    results = made_up_results()
    monkeypatch.setattr(measure, "run_jobs", lambda jobs, quick, unfinished: results.rows)
    monkeypatch.setattr(Machine, "here", lambda: MACHINE)
    file = tmp_path / f"{name}.json"
    assert main(["bench", "--output", str(tmp_path), *arguments]) == 0
    told = f"{all_tables(Results.load(file))}\n\nresults are in {file}\n"
    drawn = [] if arguments else [file.with_suffix(".png")]
    assert capsys.readouterr().out == told + "".join(f"the picture is {picture}\n" for picture in drawn)
    assert sorted(tmp_path.iterdir()) == [file, *drawn]


def test_a_checkouts_benchmarks_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks", ModuleType("benchmarks"))
    assert checkout.in_checkout()
    command = checkout.benchmarks_command()
    assert Path(command.__file__) == Path(__file__).parents[2] / "benchmarks" / "command.py"


@pytest.mark.gpu
def test_quick_run_of_a_small_case(capsys, tmp_path: Path) -> None:
    arguments = ["bench", "--quick", "--only", "cases", "stages", "--cases", "CogVideoX-5B", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert "CogVideoX-5B (17,776)" in capsys.readouterr().out
    (file,) = tmp_path.glob("*.json")
    results = Results.load(file)
    ours = [row for row in results.rows if row.attention == PSA and row.stage == WHOLE_OP]
    assert {(row.importance, row.block_n, row.tail) for row in ours} == {
        (x.importance, x.block_n, x.tail) for x in SETTINGS
    }
    assert all(row.ms and row.host_ms and row.ratio and row.error is not None for row in ours)
    assert all(row.extra_memory is not None for row in ours if row.part == "stages")
    assert {KERNEL, PYRAMID, BLOCK_LIST, SELECTION} <= {row.stage for row in results.rows}
