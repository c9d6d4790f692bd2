"""The error of attention that a run measures, against attention by its definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from psa_core import PSAConfig
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.report.calls import AttentionError
from psa_core.report.report import Report

from ..support.tensors import DEVICE, Shape, random_qkv, relative_error, softmax_attention

GRID = (2, 8, 8)
EVERYTHING = PSAConfig(block_n=32, block_m=64, mask_mode="topk", mask_ratios={1: (0, 1)})
LITTLE = EVERYTHING.replace(mask_ratios={1: (0, 0.3), 4: (0.3, 0.6), 0: (0.6, 1)})


@pytest.mark.parametrize(
    ("config", "dtype"), [(EVERYTHING, torch.float32), (LITTLE, torch.float32), (LITTLE, torch.float64)]
)
def test_it_is_the_relative_error_of_the_output(config: PSAConfig, dtype: torch.dtype) -> None:
    run = Run(config, "torch", measure_errors=True)
    outs = {}
    for step, layer in ((0, 1), (2, 0), (2, 1)):
        q, k, v = random_qkv(Shape(batch=2, heads=2), dtype)
        out = run.attend(q, k, v, Place(step, layer, GRID))
        outs[step, layer] = relative_error(out, softmax_attention(q, k, v))
    errors = run.report.attention_errors()
    assert [(error.step, error.layer) for error in errors] == list(outs)
    assert [error.error for error in errors] == pytest.approx(list(outs.values()), rel=1e-3, abs=1e-6)
    assert all(error.error < 1e-5 if config is EVERYTHING else error.error > 0.05 for error in errors)
    assert run.report.as_dict()["attention_errors"] == [error._asdict() for error in errors]


def test_it_is_measured_in_half_precision_too() -> None:
    run = Run(LITTLE, "torch", measure_errors=True)
    q, k, v = random_qkv(Shape(heads=2), torch.bfloat16)
    out = run.attend(q, k, v, Place(0, 0, GRID))
    (error,) = run.report.attention_errors()
    assert error.error == pytest.approx(relative_error(out, softmax_attention(q, k, v)), rel=0.05)


def test_nothing_to_attend_to_is_no_error() -> None:
    run = Run(LITTLE, "torch", measure_errors=True)
    q, k, v = random_qkv(Shape())
    run.attend(q, k, torch.zeros_like(v), Place(0, 0, GRID))
    assert run.report.attention_errors() == [(0, 0, 0.0)]


def test_it_is_measured_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_):
        raise AssertionError

    monkeypatch.setattr("psa_core.hosts.run.pyramid_sparse_attention", never)
    run = Run(LITTLE, "torch")
    run.attend(*random_qkv(Shape()), Place(0, 0, GRID))
    assert run.report.attention_errors() == []
    assert "attention_errors" not in run.report.as_dict()


def test_a_picture_of_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = pytest.importorskip("psa_core.report.pictures.heat_maps", exc_type=ImportError)
    drawn = []
    monkeypatch.setattr(pictures, "_draw_heat_map", lambda *given: drawn.append(given))
    errors = [AttentionError(1, 0, 0.1), AttentionError(1, 0, 0.3), AttentionError(2, 1, 0.8)]
    pictures.errors_picture(errors, tmp_path / "x.png")
    pictures.errors_picture(errors, tmp_path / "x.png", most=1.5)
    table, highest, title, *_ = drawn[0]
    nan = math.nan
    np.testing.assert_allclose(table, [[nan, 0.2, nan], [nan, nan, 0.8]])
    assert (highest, drawn[1][1]) == (0.8, 1.5)
    assert "0.4 on average" in title
    with pytest.raises(ValueError, match="no error was measured"):
        pictures.errors_picture([], tmp_path / "x.png")


def test_recording_does_not_ask_for_the_number() -> None:
    class Watched(torch.Tensor):
        """Fails when it is made a number."""

        def __float__(self) -> float:
            raise AssertionError

    report = Report()
    number = torch.tensor(0.5, device=DEVICE).as_subclass(Watched)
    report.add_sparse(0, 0, torch.ones(1), torch.ones(1), number)
    assert report.sparse_count == 1
