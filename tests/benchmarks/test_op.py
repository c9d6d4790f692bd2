"""The op beyond ``psa bench``: parts, stages, FlexAttention, tables and pictures. Numbers here are made up."""

from __future__ import annotations

import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from benchmarks.op import precisions as precision_part
from benchmarks.op.cases import FEW_BLOCKS, FIELD_CASES, PARTS, length_cases
from benchmarks.op.crossover import crossover, crossovers
from benchmarks.op.field import kept_share
from benchmarks.op.flex import flex_block_mask, top_blocks
from benchmarks.op.parts import benchmark_jobs
from benchmarks.op.precisions import ADDED, KEPT, precision_contenders
from benchmarks.op.stages import BLOCK_LIST, KERNEL, PYRAMID, REST, SELECTION, stage_rows
from benchmarks.op.tables import all_tables
from psa_core.apps.bench.cases import Case
from psa_core.apps.bench.inputs import Inputs, video_inputs
from psa_core.apps.bench.ours import Setting
from psa_core.apps.bench.results import PSA, WHOLE_OP, Results, Row
from psa_core.apps.bench.rivals import CUDNN
from psa_core.apps.bench.timing import Contender
from psa_core.apps.cli import main
from psa_core.ops.backends import triton_installed
from psa_core.ops.levels.bounds import level_bounds

from ..support.bench_results import MACHINE, made_up_results
from ..support.tensors import DEVICE, relative_error

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")

SMALL = Case("small", 2, 64, (3, 12, 14), 20)


def test_lengths_are_those_of_the_sweep() -> None:
    lengths = {case.heads: [x.tokens for x in length_cases() if x.heads == case.heads] for case in length_cases()}
    assert lengths[12] == lengths[40] == [2040, 4080, 8160, 12240, 16320, 24480, 32640, 65280, 130560]
    assert lengths[48] == lengths[12][:-1]


def test_jobs_run_in_parts() -> None:
    assert {job.part for job in benchmark_jobs(PARTS)} == set(PARTS)
    (job,) = benchmark_jobs(["cases", "length"], ["cogvideox-5b"])
    assert (job.part, job.case.name) == ("cases", "CogVideoX-5B")
    assert max(job.case.tokens for job in benchmark_jobs(["length"], quick=True)) < 17_000
    assert {job.case.name for job in benchmark_jobs(PARTS, ["14B 720p"])} == {"Wan 14B 720p 81f"}
    assert {job.part for job in benchmark_jobs(PARTS) if job.finish is stage_rows} == {"stages"}
    for parts, names, option in ((PARTS, ["Flux"], "--cases"), (["speed"], None, "--only")):
        with pytest.raises(ValueError, match=option):
            benchmark_jobs(parts, names)


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
    other = Setting("mean").row("cases", SMALL).replace(ms=30.0)
    rows = stage_rows([other, *(row.replace(stage=stage, ms=ms) for stage, ms in timed.items())])
    assert rows[0] == other
    found = {x.stage: x.ms for x in rows}
    assert found[SELECTION] == pytest.approx(1.0)
    assert found[REST] == pytest.approx(1.5)
    assert "importance and level selection" not in found


@needs_triton
def test_every_precision_is_measured_over_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("tiny", 1, 64, (2, 8, 8), 3)
    monkeypatch.setattr(precision_part, "with_memory", lambda contender, inputs: contender)
    monkeypatch.setattr(precision_part, "DENSITIES", (0.5,))
    monkeypatch.setattr(precision_part, "DENSITY", 0.5)
    monkeypatch.setattr(precision_part, "IMPORTANCE", ("mean",))
    monkeypatch.setattr(precision_part, "precisions", lambda *_: ("bf16", "int8"))
    inputs = video_inputs(case, DEVICE, torch.float16)
    measured = [x for x in precision_contenders("precision", case, inputs) if x is not None]
    ours = [x for x in measured if (x.row if isinstance(x, Contender) else x).attention == PSA]
    (added,) = (x for x in ours if isinstance(x, Row))
    assert added.stage == ADDED
    assert added.error is not None
    assert 0 < added.error < 0.05
    contenders = [x for x in ours if isinstance(x, Contender)]
    outs = {(x.row.precision, x.row.stage): x.call() for x in contenders}
    assert {stage for precision, stage in outs if precision == "int8"} == {
        WHOLE_OP,
        KEPT,
        KERNEL,
        f"{KERNEL}, level 1 only",
    }
    for (precision, stage), out in outs.items():
        whole = outs[precision, WHOLE_OP if "level 1" not in stage else f"{KERNEL}, level 1 only"]
        assert relative_error(out, whole) < 2e-3


def test_few_blocks_are_64_of_64() -> None:
    share = kept_share(FEW_BLOCKS)
    config = Setting("mean", 64, share).config(FEW_BLOCKS).replace(mask_ratios={1: (0.0, share), 0: (share, 1.0)})
    (levels, bounds, _) = level_bounds(config, math.ceil(FEW_BLOCKS.tokens / 64))
    assert (levels, bounds) == ((1, 0), (64,))
    assert [case.tokens for case in FIELD_CASES] == [14_080, 32_640, 38_196, 108_756, 104_050, 109_632]


def test_table_from_a_file(tmp_path: Path, capsys) -> None:
    file = tmp_path / "results.json"
    made_up_results().save(file)
    assert main(["bench", "--table", str(file)]) == 0
    out = capsys.readouterr().out
    assert out == all_tables(made_up_results()) + "\n"
    assert "Imaginary GPU, 2000-01-01, torch 0.0, Triton 0.0, dense = cuDNN SDPA" in out
    assert "| PSA, n = 128, mean | 2.50 ms, 4.00x |" in out
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
