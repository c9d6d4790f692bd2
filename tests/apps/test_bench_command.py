"""The command ``psa bench``, and its whole models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from psa_core.apps.bench import run
from psa_core.apps.bench.cases import WAN_720P, Case
from psa_core.apps.bench.checks import WrongResultError, relative_error
from psa_core.apps.bench.ours import SETTINGS, Setting
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

    monkeypatch.setattr(run, "gpu", lambda: CPU)
    monkeypatch.setattr(run, "run_jobs", wrong)
    assert main(["bench", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", "psa: PSA: wrong result\n")


@pytest.mark.parametrize("arguments", [["--targets", "--only", "cases"], ["--targets", "--cases", "Wan"]])
def test_options_that_do_not_go_together(arguments: list[str], capsys) -> None:
    assert main(["bench", *arguments]) == 2
    assert "has no meaning beside" in capsys.readouterr().err


@pytest.mark.parametrize("rotary", [False, True])
def test_forward_passes_of_whole_models_run_sparse(rotary: bool) -> None:
    pytest.importorskip("diffusers")
    from psa_core.apps.bench.model import Transformer, forward_pass
    from psa_core.hosts.diffusers import patch

    from ..support.diffusers_models import TEXT, cogvideox, wan

    if rotary:
        case = Case("tiny CogVideoX1.5", 2, 64, (3, 9, 7), TEXT)
        settings = {"patch_size_t": 2, "use_rotary_positional_embeddings": True}
        transformer = Transformer(case, lambda: cogvideox(**settings), (1, 6, 4, 18, 14), (TEXT, 8), rotary)
    else:
        transformer = Transformer(Case("tiny Wan", 2, 64, (5, 9, 7)), wan, (1, 4, 5, 18, 14), (TEXT, 8), rotary)
    model, call = forward_pass(transformer, CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    dense = call()
    with patch(model, Setting("mean").config(WAN_720P), backend="torch") as handle:
        sparse = call()
    assert (handle.report.sparse_count, handle.report.dense_count) == (2, 0)
    assert 0 < relative_error(sparse, dense) < 0.2


def test_whole_models_have_the_tokens_of_their_cases() -> None:
    pytest.importorskip("diffusers")
    from psa_core.apps.bench.model import TRANSFORMERS

    for transformer in TRANSFORMERS:
        case = transformer.case
        # Wan: channels before frames and pooled 1 x 2 x 2; CogVideoX1.5: frames first and pooled 2 x 2 x 2.
        extents = [n for n in transformer.latents[1:] if n != 16]
        pooling = (2, 2, 2) if case.text_length else (1, 2, 2)
        assert tuple(n // p for n, p in zip(extents, pooling, strict=True)) == case.grid


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
