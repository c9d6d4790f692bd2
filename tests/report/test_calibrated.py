"""What a report tells of calibration."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import pytest
import torch

from psa_core import ConfigError, PSAConfig, Recipe
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.report.calibrated import Calibrated, Given
from psa_core.report.report import Report, as_document

from ..support.tensors import DEVICE, Shape, random_qkv

CONFIG = PSAConfig(mask_mode="calibrated", block_m=64, block_n=32, tile_size=(3, 4, 5), target_density=0.3)
RECIPES = tuple(
    Recipe(order=order, estimator="sampled_max", mix=mix, density=0.3)
    for order in ("Raster", "Gilbert")
    for mix in ("level 1", "tail")
)
NAMES = [recipe.name for recipe in RECIPES]


def give(
    to: Calibrated,
    numbers: list[list[int]],
    errors: list[list[float]],
    layer: int = 0,
    condition: Hashable = None,
    asked: float | None = None,
    expert: int = 0,
) -> None:
    of_head = torch.tensor(numbers, device=DEVICE)
    given = Given(RECIPES, of_head, torch.tensor(errors, device=DEVICE), asked, (2, 3, 4), 5)
    to.give(expert, layer, condition, given)


def squares(wrong: list[list[float]], right: list[list[float]]) -> torch.Tensor:
    """As in ``Choice.spot``."""
    return torch.tensor([wrong, right], device=DEVICE)


def sparse(report: Report, map_age: int = 0) -> None:
    report.add_sparse(0, 0, torch.tensor([0.25]), torch.ones(1, 1, 2, 2), map_age=map_age)


class TestCalibration:
    def test_the_largest_error_of_batch_entries_and_conditions_decides(self) -> None:
        calibrated = Calibrated()
        give(calibrated, [[0, 1], [1, 2]], [[0.1, 0.5], [0.2, 0.25]], condition="positive")
        give(calibrated, [[3, 3]], [[0.125, 0.625]], condition="negative")
        give(calibrated, [[2, 0]], [[0.75, 0.0]], layer=7)
        calibration = calibrated.calibration(CONFIG, "a model")
        assert calibration.recipes == {0: (RECIPES[1], RECIPES[3]), 7: (RECIPES[2], RECIPES[0])}
        assert calibration.errors == {0: pytest.approx((0.2, 0.625)), 7: (0.75, 0.0)}
        assert (calibration.block_m, calibration.block_n) == (64, 32)
        assert (calibration.target_density, calibration.target_error) == (0.3, None)
        assert calibration.tile_size == CONFIG.tile_size
        assert (calibration.model, calibration.grid, calibration.text_length) == ("a model", (2, 3, 4), 5)

    def test_heads_have_their_recipe_where_an_error_is_no_number(self) -> None:
        calibrated = Calibrated()
        give(calibrated, [[0, 1], [1, 2]], [[0.1, float("nan")], [float("inf"), 0.25]])
        assert [recipe for recipe, _ in calibrated.heads()[0]] == [RECIPES[1], RECIPES[1]]

    def test_the_latest_of_a_layer_and_condition_holds(self) -> None:
        calibrated = Calibrated()
        give(calibrated, [[0]], [[0.5]])
        give(calibrated, [[3]], [[0.25]])
        calibration = calibrated.calibration(CONFIG.replace(target_error=0.25))
        assert (calibration.recipes[0], calibration.errors[0]) == ((RECIPES[3],), (0.25,))
        assert (calibration.target_density, calibration.target_error) == (None, 0.25)

    @pytest.mark.parametrize("errors", [[[0.1, float("nan")]], [[float("nan"), 0.1]], [[float("inf"), 0.1]]])
    def test_of_what_is_not_a_number_is_refused_with_the_layer_and_the_cause(self, errors: list[list[float]]) -> None:
        calibrated = Calibrated()
        give(calibrated, [[0, 1], [1, 2]], [[0.1, 0.5], *errors], layer=0)
        give(calibrated, [[0, 1]], [[0.1, 0.2]], layer=7)
        with pytest.raises(ConfigError, match=r"^layer 0 = 'errors that are not numbers': attention there had queries"):
            calibrated.calibration(CONFIG)

    def test_experts_have_one_each(self) -> None:
        calibrated = Calibrated()
        give(calibrated, [[0]], [[0.5]], expert=1)
        give(calibrated, [[3]], [[0.75]])
        give(calibrated, [[2]], [[0.25]], layer=1)
        assert calibrated.experts == [0, 1]
        assert calibrated.calibration(CONFIG).recipes == {0: (RECIPES[3],), 1: (RECIPES[2],)}
        assert calibrated.calibration(CONFIG, expert=1).recipes == {0: (RECIPES[0],)}
        with pytest.raises(ConfigError, match="nothing was chosen"):
            calibrated.calibration(CONFIG, expert=2)

    def test_of_a_run_that_chose_nothing_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="mask_mode = 'thresholdbound': must be calibrated: nothing was chosen"):
            Calibrated().calibration(PSAConfig())
        with pytest.raises(ConfigError, match="mask_mode = 'calibrated': no call has run sparse, as its report says: "):
            Calibrated().calibration(CONFIG)


class TestErrors:
    def test_are_norms_of_all_heads_together(self) -> None:
        calibrated = Calibrated()
        calibrated.add_measured(4, 1, squares([[1.0, 3.0]], [[4.0, 12.0]]))
        calibrated.add_measured(8, 0, squares([[0.0], [9.0]], [[50.0], [50.0]]))
        assert calibrated.errors() == [(4, 1, 0.5), (8, 0, pytest.approx(0.3))]
        assert calibrated.error() == pytest.approx(0.4)

    def test_of_nothing(self) -> None:
        calibrated = Calibrated()
        assert calibrated.error() is None
        assert not calibrated
        calibrated.add_measured(0, 0, squares([[0.0]], [[0.0]]))
        assert calibrated.errors() == [(0, 0, 0.0)]


class TestReport:
    def report(self) -> Report:
        report = Report()
        sparse(report)
        give(report.calibrated, [[0, 1, 1]], [[0.1, 0.2, 0.3]], layer=2)
        give(report.calibrated, [[1, 1, 3]], [[0.1, 0.2, 0.3]], layer=2, condition="negative")
        give(report.calibrated, [[2]], [[0.1]], layer=10)
        report.calibrated.add_measured(4, 2, squares([[1.0]], [[16.0]]))
        return report

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_what_is_no_number_is_null_in_json(self, bad: float) -> None:
        report = self.report()
        report.add_sparse(5, 2, torch.tensor([0.25]), torch.ones(1), torch.tensor(bad))
        report.calibrated.add_measured(5, 2, squares([[bad]], [[16.0]]))
        document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
        assert [x["error"] for x in document["calibrated"]["measured_errors"]] == [0.25, None]
        assert [x["error"] for x in document["attention_errors"]] == [None]

    def test_line_has_the_error(self) -> None:
        assert self.report().line() == "PSA: error 25 %, density 0.250 | 1 sparse, 0 dense"

    @pytest.mark.parametrize(
        ("asked", "wrong", "words"),
        [
            ([0.05], 0.048, "error 4.8 % (asked 5 %)"),
            ([0.0725, 0.0725], 0.0997, "error 10 % (asked 7.25 %)"),
            ([0.1, 0.05], 0.123, "error 12 % (asked 5 % and 10 %)"),
            ([1.0], 12.5, "error 1,250 % (asked 100 %)"),
            ([0.1], 2.4e-7, "error below 0.01 % (asked 10 %)"),
            ([0.05], 0.0, "error 0 % (asked 5 %)"),
            ([0.05], float("nan"), "error not a number (asked 5 %)"),
            ([0.05], None, "error not measured (asked 5 %)"),
        ],
    )
    def test_line_has_the_error_beside_the_one_asked_for(
        self, asked: list[float], wrong: float | None, words: str
    ) -> None:
        reports = []
        for each in asked:
            report = Report()
            sparse(report)
            give(report.calibrated, [[0]], [[0.1]], asked=each)
            if wrong is not None:
                report.calibrated.add_measured(4, 0, squares([[wrong**2]], [[1.0]]))
            reports.append(report)
        assert Report.of(reports).line().startswith(f"PSA: {words}, density 0.250 | ")

    def test_line_has_no_error_that_was_not_measured(self) -> None:
        report = Report()
        sparse(report)
        give(report.calibrated, [[0]], [[0.1]])
        assert report.line() == "PSA: density 0.250 | 1 sparse, 0 dense"

    def test_as_data(self) -> None:
        document = self.report().as_dict()
        assert json.loads(json.dumps(document)) == document
        assert document["calibrated"] == {
            "recipes": {"2": {NAMES[1]: 4, NAMES[0]: 1, NAMES[3]: 1}, "10": {NAMES[2]: 1}},
            "seconds": None,
            "asked_errors": [],
            "measured_errors": [{"step": 4, "layer": 2, "error": 0.25}],
        }
        # The most frequent first.
        assert list(document["calibrated"]["recipes"]["2"]) == [NAMES[1], NAMES[0], NAMES[3]]

    def test_of_several_runs(self) -> None:
        first, second = self.report(), Report()
        give(second.calibrated, [[3, 3, 3]], [[0.1, 0.2, 0.3]], layer=2)
        second.calibrated.add_measured(9, 0, squares([[9.0]], [[16.0]]))
        whole = Report.of([first, second]).calibrated
        assert whole.calls == 6
        assert whole.errors() == [(4, 2, 0.25), (9, 0, 0.75)]
        recipes = whole.as_dict()["recipes"]
        assert recipes == {"2": {NAMES[3]: 4, NAMES[1]: 2}, "10": {NAMES[2]: 1}}
        assert first.as_dict()["calibrated"]["recipes"]["2"] == {NAMES[1]: 4, NAMES[0]: 1, NAMES[3]: 1}
        models = as_document([first, second])["models"]
        assert [len(model["calibrated"]["measured_errors"]) for model in models] == [1, 1]

    def test_recording_reads_no_tensor(self) -> None:
        class Watched(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                raise AssertionError(func)

        watched, calibrated = torch.ones(1, 2).as_subclass(Watched), Calibrated()
        calibrated.give(0, 0, None, Given(RECIPES, watched, watched))
        calibrated.add_measured(0, 0, watched)
        assert calibrated


class TestMapAges:
    def test_are_counted_before_and_after_calls_are_read(self) -> None:
        report = Report()
        for age in (2, 0, 1, 0):
            sparse(report, age)
        assert list(report.map_ages().items()) == [(0, 2), (1, 1), (2, 1)]
        report.density()
        sparse(report, 2)
        assert report.map_ages() == {0: 2, 1: 1, 2: 2}
        assert report.as_dict()["map_ages"] == {"0": 2, "1": 1, "2": 2}
        assert Report.of([report, report]).map_ages() == {0: 4, 1: 2, 2: 4}

    def test_are_not_told_where_no_map_was_kept(self) -> None:
        report = Report()
        sparse(report)
        assert report.map_ages() == {0: 1}
        assert "map_ages" not in report.as_dict()


def test_a_run_tells_what_it_did() -> None:
    run = Run(CONFIG.replace(map_steps=2, min_tokens=0), "torch")
    tensors = random_qkv(Shape(1, 2, 256, 256))
    for step in range(6):
        run.attend(*tensors, Place(step, 3, (4, 8, 8), steps=6))
    report = run.report
    assert report.map_ages() == {0: 3, 1: 3}
    # Every second step after the choice, as in runs of few steps, and in the last.
    assert [(x.step, x.layer) for x in report.calibrated.errors()] == [(2, 3), (4, 3), (5, 3)]
    # The same tensors all along, and two of the blocks of the trial.
    chosen_by = report.calibrated.calibration(CONFIG).errors[3]
    assert report.calibrated.error() == pytest.approx(sum(chosen_by) / 2, rel=0.3)
    (heads,) = report.as_dict()["calibrated"]["recipes"].values()
    assert sum(heads.values()) == 2
