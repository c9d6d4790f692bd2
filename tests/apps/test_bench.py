"""The benchmark: its cases, jobs, checks, tables and files. Numbers here are made up."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.apps.bench import side_by_side
from psa_core.apps.bench.cases import CASES, DENSITY, DENSITY_CASES, Case, mask_ratios
from psa_core.apps.bench.checks import WrongResultError, error_from_dense, error_from_levels, judge, relative_error
from psa_core.apps.bench.inputs import Inputs, video_inputs
from psa_core.apps.bench.jobs import op_jobs
from psa_core.apps.bench.ours import SETTINGS, Setting
from psa_core.apps.bench.results import Results, Row, file_stem
from psa_core.apps.bench.rivals import CUDNN, RefusalError, int8_contender, sol_contender
from psa_core.apps.bench.table import tables
from psa_core.apps.bench.timing import Contender, Timing

from ..support.bench_results import MACHINE, made_up_results

CPU = torch.device("cpu")
SMALL = Case("small", 2, 64, (3, 12, 14), 20)


def test_cases_have_the_models_token_counts() -> None:
    assert [case.tokens for case in CASES] == [64_800, 32_760, 32_760, 17_776, 45_106]


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


def test_jobs_are_the_cases_and_the_densities() -> None:
    jobs = op_jobs()
    assert [job.case for job in jobs if job.part == "cases"] == list(CASES)
    assert [job.case for job in jobs if job.part == "density"] == list(DENSITY_CASES)
    (job,) = op_jobs(["cogvideox-5b"])
    assert (job.part, job.case.name) == ("cases", "CogVideoX-5B")
    with pytest.raises(ValueError, match="--cases"):
        op_jobs(["Flux"])


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


def test_dense_attention_is_checked_against_itself(checked) -> None:
    _, inputs, _ = checked
    dense = torch.nn.functional.scaled_dot_product_attention(*inputs)
    assert error_from_dense(dense, inputs) < 1e-4
    assert error_from_dense(dense.roll(1, 2), inputs) > 1e-2


def test_the_check_fails_what_is_wrong(checked) -> None:
    out, inputs, levels = checked
    unwritten, shifted = out.clone(), out.roll(1, 2)
    unwritten[:, -1, -1, -1] = math.nan
    for wrong, levels_then in ((unwritten, levels), (shifted, levels), (out, levels.flip(-1))):
        with pytest.raises(WrongResultError, match="wrong result"):
            judge("ours", error_from_levels(wrong, inputs, levels_then, 32), 1e-2)
    assert relative_error(out, 2 * out) == pytest.approx(0.5)


def test_a_wrong_rival_is_a_row_and_a_wrong_result_of_ours_an_error() -> None:
    row = Setting("mean").row("cases", SMALL)
    assert side_by_side.prepare(Contender(row, lambda: None, error=lambda: 1e-3)).error == 1e-3
    assert "relative error 0.5" in (
        side_by_side.prepare(Contender(row, lambda: None, error=lambda: 0.5, rival=True)).refusal or ""
    )
    with pytest.raises(WrongResultError):
        side_by_side.prepare(Contender(row, lambda: None, error=lambda: math.nan))


def test_rivals_that_are_not_there_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfy_kitchen", None)
    inputs = video_inputs(SMALL, CPU, torch.float32)
    for make in (lambda: int8_contender("cases", SMALL, inputs), lambda: sol_contender("cases", SMALL, inputs, 0.15)):
        with pytest.raises(RefusalError, match="not installed"):
            make()


def test_text_is_a_sink_of_sol_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def sol_attn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> torch.Tensor:
        asked.append(options)
        return q

    kitchen = SimpleNamespace(sol_attn=sol_attn, sol_attn_is_available=lambda device: True)
    monkeypatch.setitem(sys.modules, "comfy_kitchen", kitchen)
    for text in (0, 65):
        case = Case("small", 1, 128, (1, 8, 8), text)
        sol_contender("cases", case, video_inputs(case, CPU, torch.float32), 0.2).call()
    assert asked == [{"topk_ratio": 0.2}, {"topk_ratio": 0.2, "sink_blocks": [0, 2], "sink_q": [0, 2]}]


def test_ratios_are_against_the_dense_backend() -> None:
    rows = [Row.of("cases", SMALL, CUDNN), *(setting.row("cases", SMALL) for setting in SETTINGS[:2])]
    rows.append(rows[1].replace(stage="pyramid"))
    timed = side_by_side.with_ratios(rows, [Timing(ms, 0.1) for ms in (6.0, 2.0, 3.0, 1.0)])
    assert [row.ratio for row in timed] == [1.0, 3.0, 2.0, None]


def test_results_survive_json(tmp_path: Path) -> None:
    results = made_up_results()
    file = tmp_path / "new folder" / f"{file_stem('Imaginary GPU', 'first call', 'quick')}.json"
    results.save(file)
    assert file.name == "Imaginary_GPU-first_call-quick.json"
    assert Results.load(file) == results
    file.write_text('{"rows": [{}]}')
    with pytest.raises(ValueError, match="psa bench has written"):
        Results.load(file)


def test_tables_of_the_op() -> None:
    text = tables(made_up_results())
    assert text.startswith("Imaginary GPU, 2000-01-01, torch 0.0, Triton 0.0, dense = cuDNN SDPA\n")
    assert "| PSA, n = 128, mean | 2.50 ms, 4.00x |" in text
    assert "- a rival: not installed (Wan 1.3B 720p 69f)" in text
    assert "| by density | 0.05 | 0.1 | 0.15 | 0.2 | 0.3 | 0.4 | 0.5 |" in text
    assert "| Wan 1.3B 720p 69f, PSA, n = 128, mean | 1.00 ms, 16.00x | 1.00 ms, 8.00x |" in text
    assert tables(Results(MACHINE, CUDNN, []), "", "| more |") == f"{made_up_results().caption()}\n\n| more |"
