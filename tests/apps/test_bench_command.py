"""The command ``psa bench``."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from psa_core.apps.bench import checkout, measure
from psa_core.apps.bench.checks import WrongResultError
from psa_core.apps.bench.ours import SETTINGS
from psa_core.apps.bench.results import PSA, WHOLE_OP, Results
from psa_core.apps.bench.stages import BLOCK_LIST, KERNEL, PYRAMID, SELECTION
from psa_core.apps.cli import main

CPU = torch.device("cpu")


@pytest.mark.parametrize("arguments", [[], ["--targets"], ["--model"], ["--quick", "--only", "cases"]])
def test_without_a_gpu_it_is_one_line_and_exit_code_2(
    arguments: list[str], capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--output", str(tmp_path), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "psa: psa bench needs a CUDA GPU, and torch sees none here\n")
    assert not list(tmp_path.iterdir())


def test_a_wrong_result_is_exit_code_1(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(*_):
        raise WrongResultError("PSA: wrong result")

    monkeypatch.setattr(measure, "gpu", lambda: CPU)
    monkeypatch.setattr(measure, "run_jobs", wrong)
    assert main(["bench", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", "psa: PSA: wrong result\n")


@pytest.mark.parametrize("arguments", [["--targets", "--only", "cases"], ["--targets", "--cases", "Wan"]])
def test_options_that_do_not_go_together(arguments: list[str], capsys) -> None:
    assert main(["bench", *arguments]) == 2
    assert "has no meaning beside" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--targets", "--model", "--quality", "--study"])
@pytest.mark.parametrize("files", [(), ("benchmarks/command.py",), ("pyproject.toml",)])
def test_what_engineers_measure_needs_a_checkout(
    option: str, files: tuple[str, ...], capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    assert main(["bench", option]) == 2
    needs = f"psa: psa bench {option} needs a checkout of the repository: there is no benchmarks/ in {tmp_path}\n"
    assert capsys.readouterr() == ("", needs)


def test_a_checkouts_benchmarks_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks", ModuleType("benchmarks"))
    command = checkout.benchmarks_command("--study")
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
    assert {KERNEL, PYRAMID, BLOCK_LIST, SELECTION} <= {row.stage for row in results.rows}
