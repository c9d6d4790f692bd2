"""What the picture of a report shows of calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from psa_core import Recipe
from psa_core.report.calibrated import Given
from psa_core.report.report import Report
from psa_core.settings.orders import ORDERS
from psa_core.settings.recipe import MIXES

to_rgb = pytest.importorskip("matplotlib.colors").to_rgb
report_picture = pytest.importorskip("psa_core.report.pictures.run_report", exc_type=ImportError)
pictures = pytest.importorskip("psa_core.report.pictures.calibrated", exc_type=ImportError)

RECIPES = tuple(
    Recipe(order=order, estimator="mean", mix=mix, density=0.25) for order in ("Raster", "Gilbert") for mix in MIXES
)


def run(
    numbers: Sequence[int] = (0, 1, 5),
    asked: float | None = 0.05,
    errors: Sequence[tuple[int, float]] = ((4, 0.04), (4, 0.06), (5, 0.06)),
    ages: Sequence[int] = (0, 1, 2, 3, 0, 1),
    recipes: tuple[Recipe, ...] = RECIPES,
    expert: int = 0,
) -> Report:
    """A report of three layers, of which the one in the middle chose recipes."""
    report = Report()
    for step, age in enumerate(ages):
        report.add_sparse(step, 2, torch.tensor([0.25]), torch.ones(1), map_age=age)
    given = Given(recipes, torch.tensor([numbers]), torch.full((1, len(numbers)), 0.1), asked)
    report.calibrated.give(expert, 1, None, given)
    for step, error in errors:
        report.calibrated.add_measured(step, 1, torch.tensor([[[error**2]], [[1.0]]]))
    return report


def drawn(*models: Report) -> list[Any]:
    """The axes of the picture."""
    made: list[Any] = []

    class Kept(report_picture.Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_picture, "Figure", Kept)
        picture = report_picture.report_picture(models)
    assert picture.width == 920
    (figure,) = made
    axes: list[Any] = figure.axes
    return axes


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


def legend(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def title(axis: Any) -> str:
    text: str = axis.get_title(loc="left")
    return text


def test_every_order_and_mix_has_a_colour_of_its_own() -> None:
    colours = [pictures._colour(order, mix) for order in ORDERS for mix in MIXES]
    apart = [np.abs(np.subtract(x, y)).sum() for i, x in enumerate(colours) for y in colours[:i]]
    assert min(apart) > 0.15
    # And none that of layers without recipes.
    assert min(np.abs(np.subtract(colour, to_rgb(pictures.DENSE))).sum() for colour in colours) > 0.15


def test_recipes_lie_at_their_layer_and_head() -> None:
    _, _, _, recipes, _, _ = drawn(run())
    cells = recipes.images[0].get_array()
    assert cells.shape == (3, 3, 3)
    expected = [
        pictures._colour(*named) for named in (("Raster", "level 1"), ("Raster", "pyramid"), ("Gilbert", "tail"))
    ]
    np.testing.assert_allclose(cells[1], expected)
    np.testing.assert_allclose(cells[[0, 2]], np.full((2, 3, 3), to_rgb(pictures.DENSE)))
    assert title(recipes) == "Recipes by layer and head, chosen at density 0.25"


def test_a_legend_has_the_share_of_each_order_and_mix() -> None:
    recipes = drawn(run((0, 1, 1, 5)))[3]
    (table,) = recipes.child_axes
    assert [label.get_text() for label in table.get_xticklabels()] == list(MIXES)
    assert [label.get_text() for label in table.get_yticklabels()] == ["Raster", "Gilbert"]
    assert texts(table) == ["25 %", "50 %", "-", "-", "-", "25 %"]


def test_densities_are_told_where_heads_have_their_own() -> None:
    recipes = tuple(Recipe(order="Tile", estimator="mean", mix="tail", density=density) for density in (0.1, 0.4))
    assert title(drawn(run((0, 0, 1), recipes=recipes))[3]).endswith("chosen at densities 0.1 to 0.4 (0.20 on average)")


def test_errors_by_step_stand_beside_the_one_asked_for() -> None:
    density, errors = drawn(run())[:2]
    assert title(errors) == "Error of attention, measured on samples: 5.3 % (asked 5 %)"
    assert legend(errors) == ["from layer to layer", "mean of layers", "asked for"]
    means, asked = errors.lines
    np.testing.assert_allclose(means.get_xydata(), [[4, 0.05], [5, 0.06]], rtol=1e-5)
    assert list(asked.get_ydata()) == [0.05, 0.05]
    (spread,) = errors.collections
    np.testing.assert_allclose(spread.get_segments(), [[[4, 0.04], [4, 0.06]], [[5, 0.06], [5, 0.06]]], rtol=1e-5)
    assert errors.get_ylim()[1] > 0.06
    assert errors.get_xlim() == density.get_xlim()


def test_with_a_density_asked_for_the_measured_error_stands_alone() -> None:
    errors = drawn(run(asked=None))[1]
    assert title(errors).endswith("samples: 5.3 %")
    assert legend(errors) == ["from layer to layer", "mean of layers"]


@pytest.mark.parametrize("errors", [(), ((4, float("nan")),)], ids=["nothing measured", "not a number"])
def test_without_numbers_there_is_no_plot_of_errors(errors: Sequence[tuple[int, float]]) -> None:
    titles = [title(axis).partition(" ")[0] for axis in drawn(run(errors=errors))]
    assert titles == ["Density", "Blocks", "Recipes", "Attention", "Time"]


@pytest.mark.parametrize(
    ("ages", "words"),
    [
        ((0, 0, 0), ""),
        ((0, 1, 0, 1, 0), "; calls by their map's age in steps: 0: 3, 1: 2"),
        (range(8), "; calls by their map's age in steps: 0: 1, 1: 1, 2: 1, 3: 1, 4 to 7: 4"),
    ],
)
def test_ages_of_maps_are_counted(ages: Sequence[int], words: str) -> None:
    shares = drawn(run(ages=ages))[2]
    assert title(shares) == f"Blocks by level, in sparse calls{words}"


def test_time_of_calibration_stands_below_that_of_sparse_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    report, now = run(), iter([0.0, 1.0, 3.0, 8.0])
    monkeypatch.setattr(report._clock, "_now", lambda: next(now))
    cpu = torch.device("cpu")
    with report.time_sparse(cpu), report.time_calibration(cpu):
        pass
    counts, times = drawn(report)[-2:]
    names = [label.get_text() for label in counts.get_yticklabels()]
    assert names == ["sparse", "of these, calibration"]
    assert texts(counts) == ["6", "4"]
    assert texts(times) == ["8 s", "2 s"]
    assert title(times) == "Time in attention: 8 s"


def test_several_models_have_their_recipes_each() -> None:
    second = run((5, 5, 5))
    one, other = drawn(run(), second)[3:5]
    assert title(one).startswith("Recipes by layer and head of model 1, ")
    assert title(other).startswith("Recipes by layer and head of model 2, ")
    assert (one.images[0].get_array() != other.images[0].get_array()).any()
    # As do the experts of one pipeline.
    both = run()
    both.calibrated.give(1, 1, None, Given(RECIPES, torch.tensor([[5, 5, 5]]), torch.zeros(1, 3)))
    titles = [title(axis).partition(",")[0] for axis in drawn(both)[3:5]]
    assert titles == [f"Recipes by layer and head of model {number}" for number in (1, 2)]
