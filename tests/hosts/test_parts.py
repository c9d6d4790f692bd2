"""Calls whose queries are a part of the video's, as a frame's of Wan Animate 2 with its pose video."""

from __future__ import annotations

import pytest
import torch

from psa_core import PSAConfig, attention_from_levels
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.ops.backends import triton_installed
from psa_core.report.report import Report
from psa_core.settings.sinks import Sink

from ..support.tensors import Shape, random_qkv, relative_error

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONFIG = PSAConfig(block_n=32, min_tokens=0, mask_mode="calibrated", target_density=0.3, map_steps=2)


def at(step: int, part: int, sink: Sink) -> Place:
    return Place(
        step, 0, None, (sink,), condition="part", window=(None, part), grid_optional=True, in_parts=True
    )  # fmt: skip


@pytest.mark.parametrize(
    "backend",
    ["torch", pytest.param("triton", marks=pytest.mark.skipif(not triton_installed(), reason="no Triton"))],
)
def test_each_part_has_its_own_map_and_sees_the_sink(backend: str) -> None:
    run = Run(CONFIG, backend=backend, report=Report(keep_levels=True))
    sink = Sink(320, 400, dense_rows=False)
    calls = [random_qkv(Shape(1, 1, 130, 400), device=CPU) for _ in range(2)]
    for step in range(2):
        for part, (q, k, v) in enumerate(calls):
            place = at(step, part, sink)
            assert run.dense_reason(q, k, place) is None
            out = run.attend(q, k, v, place)
            levels = run.report.level_maps[step, 0]
            assert levels.shape == (1, 1, 2, 13)
            assert (levels[..., 10:] == 1).all()
            assert (levels[..., :10] != 1).any()
            expected = attention_from_levels(q, k, v, levels, block_m=128, block_n=32, backend="torch")
            assert relative_error(out, expected) < 1e-3
    assert run.report.calibrated.calls > 0


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_a_frame_at_full_size_on_a_gpu(precision: str) -> None:
    frame, clip = 1560, 21 * 1560
    shape = Shape(1, 4, frame, clip + frame, d=128)
    q, k, v = random_qkv(shape, dtype=torch.bfloat16, device=CUDA)
    report = Report(keep_levels=True)
    run = Run(CONFIG.replace(precision=precision), report=report)
    place = at(0, 0, Sink(clip, clip + frame, dense_rows=False))
    assert run.dense_reason(q, k, place) is None
    out = run.attend(q, k, v, place)
    wide = [x.float() for x in (q, k, v)]
    expected = attention_from_levels(*wide, report.level_maps[0, 0], block_m=128, block_n=32, backend="torch")
    assert relative_error(out, expected) < 0.05
