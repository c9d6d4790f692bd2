"""Steps from noise levels: lists that fall, rise, start over and hold zeros, and parts of schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis
import pytest
from hypothesis import strategies as st

from psa_core.hosts.noise_levels import Part, StepCounter, Window, falls, part_of_schedules, part_of_shifted_uniform

# Wan 2.2's, distilled to four steps.
LIGHTNING = [1.0, 0.9375, 0.8333, 0.625, 0.0]


@pytest.mark.parametrize(
    "sigmas",
    [LIGHTNING, [0.0, 0.3, 0.6, 1.0], [0.9, 0.5, 0.9, 0.5, 0.0], [0.0, 0.9, 0.5, 0.0], [14.6, 3.2, 0.03]],
)
def test_a_sampler_that_calls_at_every_level_passes_every_step(sigmas: list[float]) -> None:
    counter = StepCounter(sigmas)
    # With prompts of different length the model is called twice a step.
    seen = [counter.at(sigma) for sigma in sigmas[:-1] for _ in range(2)]

    assert seen == [step for step in range(len(sigmas) - 1) for _ in range(2)]


def test_a_level_that_is_held_counts_once() -> None:
    """Nothing tells the steps of one level apart."""
    counter = StepCounter([0.9, 0.5, 0.0, 0.0])
    assert [counter.at(sigma) for sigma in (0.9, 0.5, 0.0)] == [0, 1, 2]
    counter = StepCounter([0.9, 0.5, 0.5, 0.5, 0.0])
    assert [counter.at(sigma) for sigma in (0.9, 0.5, 0.5, 0.3)] == [0, 1, 1, 3]


@pytest.mark.parametrize(
    ("sigma", "step"), [(2.0, 0), (0.95, 0), (0.9375, 1), (0.7, 2), (0.001, 3), (0.0, 3), (-1.0, 3)]
)
def test_between_and_beyond_levels(sigma: float, step: int) -> None:
    assert StepCounter(LIGHTNING).at(sigma) == step


@pytest.mark.parametrize("sigmas", [[], [1.0], [0.0]])
def test_a_list_without_a_step(sigmas: list[float]) -> None:
    assert StepCounter(sigmas).at(0.5) == 0


@hypothesis.given(st.lists(st.floats(0, 20), max_size=8), st.lists(st.floats(-1, 30), max_size=8))
def test_any_list_has_steps_within_it(sigmas: list[float], called: list[float]) -> None:
    counter = StepCounter(sigmas)
    for sigma in called:
        assert 0 <= counter.at(sigma) < max(len(sigmas) - 1, 1)


@hypothesis.given(st.lists(st.floats(0.01, 20), min_size=2, max_size=12, unique=True), st.floats(0, 25))
def test_in_a_falling_list_the_past_does_not_matter(levels: list[float], sigma: float) -> None:
    sigmas = sorted(levels, reverse=True)
    hypothesis.assume(all(a > b * 1.001 for a, b in pairwise(sigmas)))
    counter = StepCounter(sigmas)
    counter.at(sigmas[-1])
    assert counter.at(sigma) == StepCounter(sigmas).at(sigma)


def test_falls() -> None:
    assert falls(LIGHTNING)
    for other in ([0.0, 0.3, 0.6, 1.0], [0.9, 0.5, 0.0, 0.0], [0.0, 0.9, 0.5, 0.0], [float("nan"), 0.5], [0.5, -0.5]):
        assert not falls(other)


def shifted(steps: int, shift: float) -> list[float]:
    times = [1 - i / steps for i in range(steps + 1)]
    return [shift * u / (1 + (shift - 1) * u) for u in times]


@pytest.mark.parametrize(("begin", "end"), [(0, 2), (2, 4), (1, 4)])
def test_distilled_lists_in_parts(begin: int, end: int) -> None:
    assert part_of_shifted_uniform(LIGHTNING[begin : end + 1]) == Part(begin, 4)


@hypothesis.given(st.data(), st.integers(2, 60), st.floats(0.3, 12))
def test_equal_steps_under_any_shift(data: st.DataObject, steps: int, shift: float) -> None:
    begin = data.draw(st.integers(0, steps - 2))
    end = data.draw(st.integers(begin + 2, steps))
    assert part_of_shifted_uniform(shifted(steps, shift)[begin : end + 1]) == Part(begin, steps)


@pytest.mark.parametrize("sigmas", [[1.0, 0.5], [1.0, 0.9, 0.1, 0.05], [14.6, 3.0, 0.0], [0.9, 0.89, 0.0]])
def test_other_lists_have_no_equal_steps(sigmas: list[float]) -> None:
    assert part_of_shifted_uniform(sigmas) is None


@hypothesis.given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=8, unique=True))
def test_any_falling_list_is_read_without_an_error(levels: list[float]) -> None:
    sigmas = sorted(levels, reverse=True)
    for given in (sigmas, [*sigmas, 0.0]):
        part = part_of_shifted_uniform(given)
        assert part is None or part.before + len(given) - 1 <= part.steps


def test_the_whole_of_a_schedule_is_no_part_of_a_longer_one() -> None:
    whole = [0.95, 0.6, 0.3, 0.0]
    assert part_of_schedules(whole, [[1.0, *whole], whole]) == Part(0, 3)
    assert part_of_schedules(whole[1:], [whole]) == Part(1, 3)
    assert part_of_schedules([0.8, 0.3, 0.0], [whole]) is None


def test_a_window_has_its_start_and_not_its_end_in_any_precision() -> None:
    window = Window(0.96, 0.72727)
    for rounding in (1 - 1e-6, 1.0, 1 + 1e-6):
        assert window.holds(0.96 * rounding)
        assert not window.holds(0.72727 * rounding)
    assert window.holds(0.8)
    assert not window.holds(0.97)
    assert not window.holds(0.7)
    assert all(Window().holds(sigma) for sigma in (0.0, 1.0, 999.0))


@pytest.mark.parametrize(
    ("bounds", "before", "start", "stop"),
    [
        ((math.inf, -math.inf), 0, 0, math.inf),
        ((0.8, -math.inf), 0, 1, math.inf),
        ((math.inf, 0.4), 0, 0, 3),
        ((0.8, 0.4), 10, 11, 13),
        ((0.3, 0.1), 10, 0, math.inf),
    ],
)
def test_a_windows_steps(bounds: tuple[float, float], before: int, start: int, stop: float) -> None:
    assert Window(*bounds).steps([1.0, 0.8, 0.5, 0.4, 0.0], before) == (start, stop)
