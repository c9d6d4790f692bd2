"""The benchmark: its tables of cases, checks, files and pictures. Numbers here are made up."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.apps.bench import measure
from psa_core.apps.bench.cases import CASES, DENSITY, PARTS, Case, length_cases, mask_ratios
from psa_core.apps.bench.checks import WrongResultError, error_from_levels, judge, relative_error
from psa_core.apps.bench.crossover import crossover, crossovers
from psa_core.apps.bench.inputs import Inputs, video_inputs
from psa_core.apps.bench.ours import SETTINGS, Setting
from psa_core.apps.bench.parts import benchmark_jobs
from psa_core.apps.bench.results import WHOLE_OP, Results, Row, file_stem
from psa_core.apps.bench.rivals import (
    CUDNN,
    RefusalError,
    flex_block_mask,
    int8_contender,
    sol_contender,
    top_blocks,
)
from psa_core.apps.bench.stages import BLOCK_LIST, KERNEL, PYRAMID, REST, SELECTION, stage_rows
from psa_core.apps.bench.table import tables
from psa_core.apps.bench.timing import Contender, Timing
from psa_core.apps.cli import main

from ..support.bench_results import MACHINE, made_up_results

CPU = torch.device("cpu")
SMALL = Case("small", 2, 64, (3, 12, 14), 20)


def test_cases_have_the_models_token_counts() -> None:
    assert [case.tokens for case in CASES] == [64_800, 32_760, 32_760, 17_776, 45_106]
    lengths = {case.heads: [x.tokens for x in length_cases() if x.heads == case.heads] for case in length_cases()}
    assert lengths[12] == lengths[40] == [2040, 4080, 8160, 12240, 16320, 24480, 32640, 65280, 130560]
    assert lengths[48] == lengths[12][:-1]


@given(st.floats(0.001, 1.0), st.sampled_from([0, 32, 128]))
def test_mask_ratios_have_the_density_that_was_asked_for(density: float, rest: int) -> None:
    assume(not rest or density > 1 / rest)
    ratios = mask_ratios(density, rest)
    PSAConfig(mask_ratios=ratios, block_n=rest or 128)
    work = sum((hi - lo) / level for level, (lo, hi) in ratios.items() if level)
    assert work == pytest.approx(density)


def test_density_0_15_is_the_mix_of_the_targets() -> None:
    flat = [bound for level in (1, 2, 8, 0) for bound in mask_ratios(DENSITY)[level]]
    assert flat == pytest.approx([0, 0.1, 0.1, 0.15, 0.15, 0.35, 0.35, 1])


def test_settings_reach_their_density() -> None:
    case = Case("long", 1, 64, (4, 32, 40), text_length=200)
    q, k, v = video_inputs(case, CPU, torch.float32)
    for setting in (Setting("mean", 32), Setting("mean", 32, 0.4), Setting("mean", 32, 0.4, tail=True)):
        _, info = pyramid_sparse_attention(q, k, v, setting.config(case), text_length=200, return_info=True)
        assert float(info.density) == pytest.approx(setting.density, abs=0.02)
        assert bool((info.levels == 0).any()) != setting.tail


def test_jobs_run_in_parts() -> None:
    assert {job.part for job in benchmark_jobs(PARTS)} == set(PARTS)
    (job,) = benchmark_jobs(["cases", "length"], ["cogvideox-5b"])
    assert (job.part, job.case.name) == ("cases", "CogVideoX-5B")
    assert max(job.case.tokens for job in benchmark_jobs(["length"], quick=True)) < 17_000
    with pytest.raises(ValueError, match="--cases"):
        benchmark_jobs(PARTS, ["Flux"])


def test_inputs_are_local_peaked_and_repeatable() -> None:
    states = torch.get_rng_state()
    q, k, v = video_inputs(SMALL, CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), states)
    assert q.shape == k.shape == v.shape == (1, 2, SMALL.tokens, 64)
    assert not q.is_contiguous()
    assert q.transpose(1, 2).is_contiguous()
    assert torch.equal(video_inputs(SMALL, CPU, torch.float32).k, k)
    logits = (q @ k.mT / 8)[..., 20:, 20:]
    near, far = logits.diagonal(dim1=-2, dim2=-1).mean(-1), logits.mean((-1, -2))
    assert (near > far + 3).all()
    # Later heads are sharper.
    assert near[0, 1] > near[0, 0]


def test_inputs_give_rows_of_different_length() -> None:
    q, k, v = video_inputs(Case("long", 2, 64, (8, 24, 32)), CPU, torch.float32)
    config = PSAConfig(block_n=32, importance="mean")
    _, info = pyramid_sparse_attention(q, k, v, config, grid=(8, 24, 32), return_info=True)
    assert ((info.levels == 1).sum(-1).unique()).numel() > 5


@pytest.mark.parametrize("length", [512, 700])
def test_flex_attention_gets_the_most_important_blocks(length: int) -> None:
    q, k, v = (torch.randn(1, 2, length, 64) for _ in range(3))
    kept = top_blocks(Inputs(q, k, v), 0.3)
    blocks = math.ceil(length / 128)
    assert kept.shape == (1, 2, blocks, blocks)
    assert (kept.sum(-1) == math.ceil(0.3 * blocks)).all()
    mask = flex_block_mask(kept, length)
    assert mask.seq_lengths == (length, length)
    assert torch.equal(mask.to_dense().bool(), kept)


@pytest.fixture
def checked() -> tuple[torch.Tensor, Inputs, torch.Tensor]:
    """A result in the order in which blocks are cut, its inputs and its level map."""
    case = Case("ragged", 2, 64, (2, 25, 31))
    inputs = video_inputs(case, CPU, torch.float32)
    out, info = pyramid_sparse_attention(*inputs, Setting("mean", 32, 0.4).config(case), return_info=True)
    return out, inputs, info.levels


def test_the_check_passes_what_is_right(checked) -> None:
    out, inputs, levels = checked
    error = error_from_levels(out, inputs, levels, 32)
    judge("ours", error, 1e-4)
    assert error < 1e-4


def test_the_check_fails_what_is_wrong(checked) -> None:
    out, inputs, levels = checked
    unwritten, shifted = out.clone(), out.roll(1, 2)
    unwritten[:, -1, -1, -1] = math.nan
    for wrong, levels_then in ((unwritten, levels), (shifted, levels), (out, levels.flip(-1))):
        with pytest.raises(WrongResultError, match="wrong result"):
            judge("ours", error_from_levels(wrong, inputs, levels_then, 32), 1e-2)
    assert relative_error(out, 2 * out) == pytest.approx(0.5)


def test_a_wrong_rival_is_a_row_and_a_wrong_result_of_ours_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "extra_bytes", lambda call: 0)
    inputs = video_inputs(SMALL, CPU, torch.float32)
    row = Setting("mean").row("cases", SMALL)
    assert measure.prepare(Contender(row, lambda: None, error=lambda: 1e-3), inputs).error == 1e-3
    assert "relative error 0.5" in (
        measure.prepare(Contender(row, lambda: None, error=lambda: 0.5, rival=True), inputs).refusal or ""
    )
    with pytest.raises(WrongResultError):
        measure.prepare(Contender(row, lambda: None, error=lambda: math.nan), inputs)


def test_rivals_that_are_not_there_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfy_kitchen", None)
    inputs = video_inputs(SMALL, CPU, torch.float32)
    for make in (lambda: int8_contender("cases", SMALL, inputs), lambda: sol_contender("cases", SMALL, inputs, 0.15)):
        with pytest.raises(RefusalError, match="not installed"):
            make()


def test_ratios_are_against_the_dense_backend() -> None:
    rows = [Row.of("cases", SMALL, CUDNN), *(setting.row("cases", SMALL) for setting in SETTINGS[:2])]
    rows.append(rows[1].replace(stage="pyramid"))
    timed = measure.with_ratios(rows, [Timing(ms, 0.1) for ms in (6.0, 2.0, 3.0, 1.0)])
    assert [row.ratio for row in timed] == [1.0, 3.0, 2.0, None]


def test_stages_are_what_their_calls_have_over() -> None:
    row = Setting("mean").row("stages", SMALL)
    timed = {
        WHOLE_OP: 20.0,
        "importance and level selection": 5.0,
        "importance": 4.0,
        PYRAMID: 1.0,
        BLOCK_LIST: 0.5,
        KERNEL: 12.0,
    }
    rows = stage_rows([row.replace(stage=stage, ms=ms) for stage, ms in timed.items()])
    found = {x.stage: x.ms for x in rows}
    assert found[SELECTION] == pytest.approx(1.0)
    assert found[REST] == pytest.approx(1.5)
    assert "importance and level selection" not in found


def test_results_survive_json(tmp_path: Path) -> None:
    results = made_up_results()
    file = tmp_path / "new folder" / f"{file_stem('Imaginary GPU', 'first call', 'quick')}.json"
    results.save(file)
    assert file.name == "Imaginary_GPU-first_call-quick.json"
    assert Results.load(file) == results
    file.write_text('{"rows": [{}]}')
    with pytest.raises(ValueError, match="psa bench has written"):
        Results.load(file)


def test_table_from_a_file(tmp_path: Path, capsys) -> None:
    file = tmp_path / "results.json"
    made_up_results().save(file)
    assert main(["bench", "--table", str(file)]) == 0
    out = capsys.readouterr().out
    assert out == tables(made_up_results()) + "\n"
    assert "Imaginary GPU, 2000-01-01, torch 0.0, Triton 0.0, dense = cuDNN SDPA" in out
    assert "| PSA, n = 128, mean | 2.50 ms, 4.00x |" in out
    assert "- a rival: not installed (Wan 1.3B 720p 69f)" in out
    assert "| 12 heads of 128 | mean | 0.15 | 12,240 |" in out
    assert "| Wan 1.3B 720p 69f (64,800) | mean | 0.30 | 5.00 ms, 2.00x |" in out


def test_picture_from_a_file(tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "results.json"
    made_up_results().save(file)
    assert main(["bench", "--plot", str(file)]) == 0
    assert (tmp_path / "results.png").stat().st_size > 10_000
    Results(MACHINE, CUDNN, []).save(file)
    assert main(["bench", "--plot", str(file)]) == 2
    assert "must hold a sweep" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(1, 99), st.floats(0.1, 3)), min_size=1, unique_by=lambda point: point[0]))
def test_crossover_is_the_shortest_length_from_which_psa_stays_faster(points: list[tuple[int, float]]) -> None:
    found = crossover(points)
    slower = [tokens for tokens, ratio in points if ratio <= 1]
    longer = [tokens for tokens, _ in points if tokens > max(slower, default=0)]
    assert found == (min(longer) if longer else None)


def test_crossovers_of_a_sweep() -> None:
    assert [(x.heads, x.tokens) for x in crossovers(made_up_results().rows)] == [(12, 12240), (40, 12240), (48, 12240)]
