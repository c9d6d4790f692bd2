"""The picture of a report: its size, and what is where in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from psa_core.report.report import Report

report_picture = pytest.importorskip("psa_core.report.pictures.run_report", exc_type=ImportError)

CPU = torch.device("cpu")
WARM_UP = "warm-up"


def run(steps: Sequence[int], layers: int, warm_up: int = 0, density: float = 0.25) -> Report:
    """A report of one call in every step and layer, and one of cross-attention beside each."""
    report = Report()
    for step in steps:
        for layer in range(layers):
            if step < warm_up:
                with report.dense_call(WARM_UP, CPU, step, layer):
                    pass
            else:
                report.add_sparse(step, layer, torch.tensor([density - 0.1, 0.2]), torch.ones(1))
            with report.dense_call("cross-attention", CPU, step):
                pass
    return report


def blocked(report: Report) -> Report:
    for i in range(14):
        for _ in range(i + 1):
            report.add_dense(f"{1000 + i} tokens are not the grid 3 x 4 x {i} plus 226 of text", 0, 0)
    return report


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that is drawn."""
    made: list[Any] = []

    class Kept(report_picture.Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(report_picture, "Figure", Kept)
    return made


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


# Of what it draws, as letters that a font lacks; not of files that other tests have left to the garbage.
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    "models",
    [
        [run(range(1), 1)],
        [run(range(1), 40)],
        [run(range(50), 40, 12)],
        [run(range(3), 2, 3)],
        [run(range(4), 3, 2), run(range(4, 8), 3)],
        [run(range(4), 3), run(range(4), 3)],
        [run(range(4), 3), Report()],
        [Report()],
        [blocked(Report())],
        [blocked(run(range(9), 4))],
    ],
    ids=[
        *("one of all", "one step", "large", "all dense", "two models", "two models in the same steps"),
        *("a model without a call", "nothing", "many reasons", "many reasons and sparse calls"),
    ],
)
def test_size_and_something_drawn(models: list[Report]) -> None:
    picture = report_picture.report_picture(models)
    assert picture.mode == "RGB"
    assert picture.width == 920
    assert 100 < picture.height < 1300
    pixels = np.asarray(picture)
    assert 0.3 < (pixels > 250).all(-1).mean() < 0.995
    # Nothing is cut off at the edges.
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge > 250).all()


def test_what_it_says(figures: list[Any]) -> None:
    report = run(range(6), 3, 2, density=0.3)
    report_picture.report_picture([report])
    (figure,) = figures
    density, shares, counts, times = figure.axes[:4]
    assert figure.get_suptitle() == report.line()
    table = density.images[0].get_array()
    np.testing.assert_allclose(table[:, 2:].filled(), np.full((3, 4), 0.3), rtol=1e-6)
    assert table.mask[:, :2].all()
    legend = [text.get_text() for text in shares.get_legend().get_texts()]
    assert legend == ["ran dense", "skipped  60.0 %", "2: means of 2 keys  20.0 %", "1: every key  20.0 %"]
    names = [label.get_text() for label in counts.get_yticklabels()]
    assert dict(zip(names, texts(counts), strict=True)) == {
        "sparse": "12",
        "dense: cross-attention": "18",
        "dense: warm-up": "6",
    }
    assert texts(times)[0] == "not measured"
    assert all(text.endswith(" ms") for text in texts(times)[1:])
    assert times.get_title(loc="left").startswith("Time in attention: ")


def test_dense_steps_and_layers_at_the_ends_are_drawn_too(figures: list[Any]) -> None:
    report = run(range(2), 2)
    report.add_dense("last steps", 4, 6)
    report_picture.report_picture([report])
    density, shares = figures[0].axes[:2]
    assert density.images[0].get_array().shape == (7, 5)
    assert density.get_xlim() == shares.get_xlim() == (-0.5, 4.5)
    assert [bar.get_x() + 0.5 for bar in shares.containers[-1]] == [4]


def test_shares_are_stacked_step_by_step(figures: list[Any]) -> None:
    report = Report()
    report.add_sparse(0, 0, torch.tensor([0.5, 0.25]), torch.ones(1))
    report.add_sparse(2, 0, torch.tensor([0.125]), torch.ones(1))
    report_picture.report_picture([report])
    shares = figures[0].axes[1]
    drawn = {(bar.get_x() + 0.5, round(bar.get_y(), 3), round(bar.get_height(), 3)) for bar in shares.patches}
    assert drawn >= {(0, 0, 0.5), (0, 0.5, 0.25), (0, 0.75, 0.25), (2, 0, 0.125), (2, 0.125, 0.875)}


def test_levels_that_no_call_used_are_left_out(figures: list[Any]) -> None:
    report = Report()
    report.add_sparse(0, 0, torch.tensor([0.5, 0.0, 0.25]), torch.ones(1))
    report_picture.report_picture([report])
    legend = [text.get_text() for text in figures[0].axes[1].get_legend().get_texts()]
    assert legend == ["skipped  25.0 %", "4: means of 4 keys  25.0 %", "1: every key  50.0 %"]


def test_it_says_why_nothing_ran_sparse(figures: list[Any]) -> None:
    report_picture.report_picture([run(range(3), 2, 3)])
    counts, _ = figures[0].axes
    assert [label.get_text() for label in counts.get_yticklabels()] == ["dense: warm-up", "dense: cross-attention"]
    assert texts(counts) == ["6", "6"]


def test_rare_reasons_share_a_row(figures: list[Any]) -> None:
    report_picture.report_picture([blocked(Report())])
    counts, _ = figures[0].axes
    assert len(texts(counts)) == 9
    assert counts.get_yticklabels()[-1].get_text() == "dense: 6 other reasons"
    assert texts(counts)[-1] == str(sum(range(1, 7)))
    title = figures[0].get_suptitle()
    assert title.count("\n") == 2
    assert title.endswith(" ...")


@pytest.mark.parametrize(
    ("second", "lines"), [(range(3, 5), [2.5]), (range(2, 5), []), (range(0), [])], ids=["after", "overlap", "no call"]
)
def test_a_line_where_the_next_model_takes_over(figures: list[Any], second: range, lines: list[float]) -> None:
    report_picture.report_picture([run(range(3), 2), run(second, 2)])
    density = figures[0].axes[0]
    drawn = [line.get_xdata()[0] for line in density.lines]
    assert drawn == lines
    assert ("next model" in density.get_title(loc="left")) == bool(lines)


def test_time_is_that_of_the_model(figures: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    report, now = run([], 0), iter([0.0, 0.0, 4.0, 8.0])
    monkeypatch.setattr(report._clock, "_now", lambda: next(now))
    with report.time_model(CPU), report.dense_call(WARM_UP, CPU, 0, 0):
        pass
    report_picture.report_picture([report])
    _, times = figures[0].axes
    assert times.get_title(loc="left") == "Time in attention: 4 s of the model's 8 s"
    assert texts(times) == ["4 s"]
