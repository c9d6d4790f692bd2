"""Heads that choose in a run: again where their error has grown by half, and not at all where recipes are given."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from psa_core import Calibration, PSAConfig, Recipe, calibrate, pyramid_sparse_attention
from psa_core.attention.choose import choose_recipes
from psa_core.attention.recipes import Choice
from psa_core.attention.steps import trial_of
from psa_core.hosts import kept_choice
from psa_core.hosts.kept import Kept, Result
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.report.report import Report
from psa_core.settings.sinks import text_in_front

from ..support.tensors import Shape, random_qkv

CPU = torch.device("cpu")
GRID, TEXT = (4, 8, 16), 9
SHAPE = Shape(1, 3, 521, 521, 64, 64, 32)
CONFIG = PSAConfig(mask_mode="calibrated", block_m=64, block_n=32, target_density=0.3, min_tokens=0)
VIDEO = {"grid": GRID, "text_length": TEXT}
STEPS = 14
# What all values have in common, so that errors are small beside the output: they grow as it goes.
CALM, HARDLY, GROWN = 4.0, 3.0, 2.2
QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def noise() -> QKV:
    return random_qkv(SHAPE._replace(batch=2), device=CPU)


def in_common(noise: QKV, *of_entries: float) -> QKV:
    """Queries, keys and values of so many batch entries, the values with something in common in each of them."""
    q, k, v = (x[: len(of_entries)] for x in noise)
    return q, k, v + torch.tensor(of_entries)[:, None, None, None]


def at(step: int, **place: Any) -> Place:
    return Place(step, 0, GRID, text_in_front(TEXT), **place)


def run_steps(tensors: Callable[[int], QKV], config: PSAConfig = CONFIG, kept: Kept | None = None) -> list[Result]:
    kept = Kept() if kept is None else kept
    return [kept.attend(*tensors(step), config, at(step), "torch") for step in range(STEPS)]


def chose_in(results: list[Result]) -> list[int]:
    return [step for step, result in enumerate(results) if result.chosen is not None]


def measured_in(results: list[Result]) -> list[int]:
    return [step for step, result in enumerate(results) if result.measured is not None]


def check_heads_alone(tensors: QKV, result: Result, choice: Choice | None, config: PSAConfig) -> None:
    """The output of each head, bit for bit that of the call with its recipe and none but it."""
    assert choice is not None
    for h in range(SHAPE.heads):
        head = slice(0, 1), slice(h, h + 1)
        recipe = choice.recipes[choice.of_head[0, h]]
        alone = pyramid_sparse_attention(*(x[head] for x in tensors), recipe.config(config), **VIDEO)
        assert torch.equal(result.attended.out[head], alone)


def error_of_entries(squares: torch.Tensor) -> torch.Tensor:
    wrong, right = squares.sum(-1)
    return (wrong / right).sqrt()


def growth(results: list[Result]) -> list[torch.Tensor]:
    """Each error that was measured again by that of the choice it is of, batch entry by batch entry."""
    choice, ratios = results[0].chosen, []
    for result in results:
        choice = choice if result.chosen is None else result.chosen
        if result.measured is not None:
            assert choice is not None
            ratios.append(error_of_entries(result.measured) / error_of_entries(choice.spot))
    return ratios


def test_error_that_does_not_grow_by_half_leaves_recipes_as_they_are(noise: QKV) -> None:
    results = run_steps(lambda step: in_common(noise, *[HARDLY if step else CALM] * 2))
    ratios = torch.stack(growth(results))
    assert ((ratios > 1.1) & (ratios < 1.5)).all()
    assert chose_in(results) == [0]
    assert measured_in(results) == [4, 8, 12]


@pytest.mark.parametrize(("grows_in", "chosen_in"), [(1, 6), (4, 6), (5, 10), (8, 10)])
def test_error_that_grows_by_half_is_acted_on_two_steps_after_it_was_measured(
    noise: QKV, grows_in: int, chosen_in: int
) -> None:
    results = run_steps(lambda step: in_common(noise, CALM if step < grows_in else GROWN))
    # From there on the error of the new choice is the measure.
    assert chose_in(results) == [0, chosen_in]
    assert measured_in(results) == [*range(4, chosen_in, 4), *range(chosen_in + 4, STEPS, 4)]
    assert 1.5 < growth(results)[chosen_in // 4 - 1] < 2


@pytest.mark.parametrize(("later", "chosen_in"), [(0.3, [0, 6]), (0.1, [0])])
def test_an_error_that_a_falling_density_explains_leaves_recipes_as_they_are(
    noise: QKV, later: float, chosen_in: list[int]
) -> None:
    kept, results = Kept(), []
    for step in range(STEPS):
        config = CONFIG.replace(target_density=later if step else 0.3)
        results.append(kept.attend(*in_common(noise, *[GROWN if step else CALM] * 2), config, at(step), "torch"))
    assert growth(results)[0].max() > 1.5
    assert chose_in(results) == chosen_in


def test_what_was_measured_is_acted_on_once(noise: QKV) -> None:
    results = run_steps(lambda step: in_common(noise, GROWN if step == 4 else CALM))
    assert chose_in(results) == [0, 6]


def test_only_batch_entries_whose_error_has_grown_choose_anew(noise: QKV) -> None:
    def tensors(step: int) -> QKV:
        return in_common(noise, HARDLY if step else CALM, GROWN if step else CALM)

    kept, results = Kept(), []
    for step in range(7):
        last = tensors(step)
        results.append(kept.attend(*last, CONFIG, at(step), "torch"))
    assert chose_in(results) == [0, 6]
    first, second = results[0].chosen, results[6].chosen
    assert first is not None
    assert second is not None
    for before, after in zip(first[1:], second[1:], strict=True):
        assert torch.equal(before[..., 0, :], after[..., 0, :])
    anew = choose_recipes(trial_of(*last, CONFIG, GRID, text_in_front(TEXT), None, "torch"))
    for expected, after in zip(anew[1:], second[1:], strict=True):
        assert torch.equal(expected[..., 1, :], after[..., 1, :])
    assert not torch.equal(anew.errors[0], second.errors[0])


def test_prompts_in_one_batch_choose_what_each_chooses_alone(noise: QKV) -> None:
    kept = {"both": Kept(), "a": Kept(), "b": Kept()}
    for step in range(7):
        tensors = in_common(noise, GROWN if step else CALM, CALM)
        parts = {"both": slice(None), "a": slice(0, 1), "b": slice(1, 2)}
        results = {
            name: kept[name].attend(*(x[part] for x in tensors), CONFIG, at(step, condition=name), "torch")
            for name, part in parts.items()
        }
        alone = torch.cat([results["a"].attended.out, results["b"].attended.out])
        assert torch.equal(results["both"].attended.out, alone)
        expected = {"both", "a", "b"} if step == 0 else {"both", "a"} if step == 6 else set()
        assert {name for name, result in results.items() if result.chosen is not None} == expected


def test_two_runs_are_equal_bit_for_bit(noise: QKV) -> None:
    steps = [in_common(noise, GROWN if 2 < step < 9 else CALM, CALM) for step in range(STEPS)]
    config = CONFIG.replace(map_steps=3)
    state = torch.get_rng_state()
    first, second = (run_steps(lambda step: steps[step], config) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert chose_in(first) == chose_in(second) == [0, 6]
    assert [result.map_age for result in first] == [result.map_age for result in second]
    assert all(torch.equal(x.attended.out, y.attended.out) for x, y in zip(first, second, strict=True))


def test_every_step_is_the_call_with_the_recipes_that_heads_have(noise: QKV) -> None:
    kept, choice, chosen_in = Kept(), None, []
    for step in range(8):
        tensors = in_common(noise, GROWN if step > 2 else CALM)
        result = kept.attend(*tensors, CONFIG, at(step), "torch")
        if result.chosen is not None:
            choice = result.chosen
            chosen_in.append(step)
        check_heads_alone(tensors, result, choice, CONFIG)
    assert chosen_in == [0, 6]


def test_a_schedule_s_density_holds_with_the_recipes_of_another(noise: QKV) -> None:
    tensors = in_common(noise, 1.0)
    kept = Kept()
    choice = kept.attend(*tensors, CONFIG, at(0), "torch").chosen
    assert choice is not None
    denser = CONFIG.replace(target_density=0.6)
    result = kept.attend(*tensors, denser, at(1), "torch")
    assert result.chosen is None
    assert {recipe.density for recipe in choice.at_density(0.6).recipes} == {0.6}
    check_heads_alone(tensors, result, choice.at_density(0.6), denser)


class TestGiven:
    def test_recipes_are_taken_without_a_choice(self, monkeypatch: pytest.MonkeyPatch, noise: QKV) -> None:
        tensors = in_common(noise, 1.0)
        calibration = calibrate(*tensors, CONFIG, **VIDEO, layer=0)
        expected = pyramid_sparse_attention(*tensors, CONFIG, **VIDEO)
        monkeypatch.setattr(kept_choice, "choose_recipes", _nothing_is_chosen)
        run = Run(CONFIG, "torch", calibrations={0: calibration})
        for step in range(STEPS):
            # However much the error grows.
            out = run.attend(*(tensors if step == 0 else in_common(noise, 0.0)), at(step))
            assert step or torch.equal(out, expected)
        reported = run.report.calibrated.calibration(CONFIG)
        assert reported.recipes == calibration.recipes
        assert reported.errors[0] == pytest.approx(calibration.errors[0])

    def test_what_is_reported_is_at_the_density_that_runs(self, noise: QKV) -> None:
        tensors = in_common(noise, 1.0)
        calibration = calibrate(*tensors, CONFIG, **VIDEO, layer=0)
        denser = CONFIG.replace(target_density=0.6)
        run = Run(denser, "torch", calibrations={0: calibration})
        run.attend(*tensors, at(0))
        reported = run.report.calibrated.calibration(denser)
        expected = [replace(recipe, density=0.6) for recipe in calibration.recipes[0]]
        assert (reported.target_density, list(reported.recipes[0])) == (0.6, expected)

    def test_each_layer_has_its_own(self, monkeypatch: pytest.MonkeyPatch, noise: QKV) -> None:
        monkeypatch.setattr(kept_choice, "choose_recipes", _nothing_is_chosen)
        orders, mixes = ("Raster", "Gilbert"), ("level 1", "tail")
        recipes = {
            layer: [Recipe(order=order, estimator="sampled_sum", mix=mix, density=0.3)] * SHAPE.heads
            for layer, (order, mix) in enumerate(zip(orders, mixes, strict=True))
        }
        errors = {layer: [0.1] * SHAPE.heads for layer in recipes}
        given = Calibration(block_m=64, block_n=32, recipes=recipes, errors=errors)
        run = Run(CONFIG, "torch", calibrations={0: given})
        tensors = in_common(noise, 1.0, 2.0)
        for layer, (recipe, *_) in recipes.items():
            out = run.attend(*tensors, Place(0, layer, GRID, text_in_front(TEXT)))
            assert torch.equal(out, pyramid_sparse_attention(*tensors, recipe.config(CONFIG), **VIDEO))

    def test_heads_in_part_choose_for_themselves_and_it_is_said(self, noise: QKV) -> None:
        """Nothing says which of the calibration's heads they are."""
        tensors = in_common(noise, 1.0)
        calibration = calibrate(*tensors, CONFIG, **VIDEO, layer=0)
        part = tuple(x[:, 1:] for x in tensors)
        run = Run(CONFIG, "torch", calibrations={0: calibration})
        for step in range(2):
            run.attend(*part, at(step))
        report = Report.of([run.report, pickle.loads(pickle.dumps(run.report))])
        assert len(report.calibrated.heads()[0]) == SHAPE.heads - 1
        (said,) = report.calibrated.remarks
        assert said.startswith(f"measured anew: attention calls have {SHAPE.heads - 1} heads and the calibration")
        assert report.as_dict()["calibrated"]["remarks"] == [said]

    def test_a_layer_that_it_has_not_chooses_for_itself_and_it_is_said(self, noise: QKV) -> None:
        """A run does not break off for it when it is under way."""
        tensors = in_common(noise, 1.0)
        run = Run(CONFIG, "torch", calibrations={0: calibrate(*tensors, CONFIG, **VIDEO, layer=0)})
        for layer in range(2):
            run.attend(*tensors, Place(0, layer, GRID, text_in_front(TEXT)))
        assert sorted(run.report.calibrated.heads()) == [0, 1]
        assert run.report.calibrated.remarks == ["measured anew: the calibration has no recipes of some layers"]


def _nothing_is_chosen(trial: Any) -> None:
    raise AssertionError("heads chose in spite of a calibration")
