"""What a run keeps from step to step, and of which calls: recipes and level maps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from psa_core import PSAConfig
from psa_core.attention.steps import sparse_attention
from psa_core.hosts import kept_choice
from psa_core.hosts.kept import Kept, Result
from psa_core.hosts.kept_choice import ACT_AFTER, MEASURE_EVERY
from psa_core.hosts.kept_maps import SPARE
from psa_core.hosts.place import Place
from psa_core.hosts.run import Run
from psa_core.ops.backends import triton_installed
from psa_core.settings.at_step import Steps
from psa_core.settings.sinks import text_in_front

from ..support.tensors import Shape, random_qkv

CPU = torch.device("cpu")
GRID = (4, 8, 8)
FIXED = PSAConfig(mask_mode="topk", block_n=32, min_tokens=0, map_steps=3)
CALIBRATED = PSAConfig(mask_mode="calibrated", block_n=32, min_tokens=0, target_density=0.3)
QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def qkv(batch: int = 1) -> QKV:
    return random_qkv(Shape(batch, 2, 256, 256), device=CPU)


def at(step: int, layer: int = 0, **place: Any) -> Place:
    return Place(step, layer, **({"grid": GRID} | place))


def call(kept: Kept, tensors: QKV, place: Place, config: PSAConfig = FIXED, last: bool = False) -> Result:
    return kept.attend(*tensors, config, place, "torch", last)


def maps(kept: Kept) -> int:
    return len(kept._maps.maps)


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the calls that chose recipes."""
    made: list[int] = []

    def choose(trial: Any) -> Any:
        made.append(trial.q.shape[0])
        return chosen(trial)

    chosen = kept_choice.choose_recipes
    monkeypatch.setattr(kept_choice, "choose_recipes", choose)
    return made


def test_a_map_serves_its_steps_and_is_made_anew() -> None:
    kept = Kept()
    ages = [call(kept, qkv(), at(step)).map_age for step in range(7)]
    assert ages == [0, 1, 2, 0, 1, 2, 0]


def test_a_map_of_one_step_is_not_kept() -> None:
    kept = Kept()
    call(kept, qkv(), at(0), FIXED.replace(map_steps=1))
    assert maps(kept) == 0


def test_copies_of_a_model_keep_for_themselves(choices: list[int]) -> None:
    """The GPUs that have them run at the same time, and which comes first decides nothing."""
    kept, config = Kept(), CALIBRATED.replace(map_steps=4)
    places = [at(step, replica=replica) for step in (0, 1) for replica in ("first", "second")]
    results = [call(kept, qkv(), place, config) for place in places]
    assert [result.map_age for result in results] == [0, 0, 1, 1]
    assert (choices, maps(kept)) == ([1, 1], 2)


def test_what_a_cache_answers_for_on_one_copy_says_nothing_of_the_other() -> None:
    kept = Kept()
    for step, layers in ((0, (0, 1)), (1, (0,)), (2, (0, 1))):
        ages = [call(kept, qkv(), at(step, layer, replica="first")).map_age for layer in layers]
        call(kept, qkv(), at(step, 1, replica="second"))
    # The first copy's second layer has had a call fewer.
    assert ages == [2, 1]


def test_a_call_over_a_kept_map_is_one_with_that_map() -> None:
    kept, first, later = Kept(), qkv(), qkv()
    made = call(kept, first, at(0)).attended.level_map
    assert made is not None
    served = call(kept, later, at(1)).attended
    assert served.level_map is made
    # Of the old map and not of one of its own.
    assert not torch.equal(served.out, call(Kept(), later, at(1)).attended.out)
    again = sparse_attention(*later, FIXED, GRID, (), None, "torch", level_map=made)
    assert torch.equal(served.out, again.out)


@pytest.mark.parametrize("skipped", [range(1, 3), range(2, 5)])
def test_a_step_that_a_cache_skips_ages_no_map(skipped: range) -> None:
    """Such as first-block-cache, which asks the first layer alone, and EasyCache, which asks none."""
    for first_layer in (True, False):
        kept, ages, first = Kept(), [], []
        for step in range(8):
            if first_layer or step not in skipped:
                first.append(call(kept, qkv(), at(step, 0)).map_age)
            if step not in skipped:
                ages.append(call(kept, qkv(), at(step, 1)).map_age)
        for found in (ages, first):
            assert found == [i % 3 for i in range(len(found))]


@pytest.mark.parametrize(
    "other",
    [
        {"expert": 1},
        {"condition": "negative"},
        {"window": (4, 5, 6, 7)},
        {"reference_frames": (1, 0)},
        {"grid": (2, 8, 16)},
        {"grid": (3, 8, 8), "sinks": text_in_front(64)},
        {"batch": 2},
    ],
)
def test_a_call_elsewhere_gets_a_map_of_its_own(other: dict[str, Any]) -> None:
    kept, here = Kept(), {"layer": 0, "condition": "positive", "window": (0, 1, 2, 3)}
    elsewhere = here | other
    batch = elsewhere.pop("batch", 1)
    call(kept, qkv(), at(0, **here))
    assert call(kept, qkv(batch), at(1, **elsewhere)).map_age == 0
    assert maps(kept) == 2
    assert call(kept, qkv(), at(2, **here)).map_age == 0, "nobody asked for it in the step between"


def test_more_text_of_a_clip_whose_size_is_unknown_gets_a_map_of_its_own() -> None:
    kept = Kept()
    ages = [call(kept, qkv(), at(0, grid=None, sinks=text_in_front(length))).map_age for length in (0, 64)]
    ages += [call(kept, qkv(), at(1, grid=None, sinks=text_in_front(length))).map_age for length in (64, 0, 128)]
    assert ages == [0, 0, 1, 1, 0]
    assert maps(kept) == 3


def test_maps_beyond_the_memory_are_made_anew() -> None:
    tensors = qkv()
    size = 2 * 2 * 8
    kept = Kept(map_memory=3 * size / 2**30)
    for step in range(3):
        ages = [call(kept, tensors, at(step, layer)).map_age for layer in range(5)]
        assert ages == [step] * 3 + [0] * 2
    assert maps(kept) == 3


def test_windows_that_are_gone_leave_nothing_behind() -> None:
    kept = Kept()
    for step in range(6):
        for start in range(3):
            call(kept, qkv(), at(step, window=(step + start,)))
        # Those that two steps have in common were asked for again.
        assert maps(kept) <= 6


def test_after_the_last_step_there_is_nothing() -> None:
    run = Run(FIXED, "torch")
    for step in range(4):
        for layer in range(2):
            run.attend(*qkv(), at(step, layer, steps=4))
    assert maps(run._kept) == 0
    assert run.report.map_ages() == {0: 4, 1: 2, 2: 2}


@pytest.mark.parametrize(("schedule", "stop"), [({"last_dense": 2}, math.inf), (None, 2)])
def test_the_last_sparse_step_is_the_last(schedule: dict[str, int] | None, stop: float) -> None:
    """Which dense steps follow, or those outside of a window."""
    run = Run(CALIBRATED.replace(schedule=schedule, map_steps=4), "torch")
    for step in range(2):
        run.attend(*qkv(), at(step, steps=4, window_steps=Steps(0, stop)))
    assert maps(run._kept) == 0
    assert [measured.step for measured in run.report.calibrated.errors()] == [1]


def test_a_run_lets_go() -> None:
    run = Run(CALIBRATED.replace(map_steps=4), "torch", map_memory=0.5)
    run.attend(*qkv(), at(0))
    run.let_go()
    assert (maps(run._kept), run._kept._choices, run._kept.map_memory) == (0, {}, 0.5)


def test_a_step_that_has_one_level_keeps_no_map() -> None:
    config = FIXED.replace(mask_mode="timestep", mask_ratios={1: (0, 0.2), 2: (0.2, 0.5), 4: (0.5, 1.0)}, map_steps=8)
    run = Run(config, "torch")
    for step in range(1, 4):
        run.attend(*qkv(), at(step, steps=4))
    assert [call.density for call in run.report.sparse_calls()] == [0.5, 0.25, 0.25]


def test_where_memory_is_short_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [float("inf")]
    monkeypatch.setattr("psa_core.hosts.kept_maps.memory_left", lambda device: left[0])
    kept, tensors, config = Kept(), qkv(), FIXED.replace(map_steps=8)
    ages = []
    for step, bytes_left in enumerate([1e12, 1e12, SPARE, SPARE, 1e12, 1e12]):
        left[0] = bytes_left
        ages.append(call(kept, tensors, at(step), config).map_age)
    assert ages == [0, 1, 0, 0, 0, 1]


def test_heads_choose_once(choices: list[int]) -> None:
    kept, tensors = Kept(), qkv()
    results = [call(kept, tensors, at(step), CALIBRATED) for step in range(9)]
    assert choices == [1]
    assert [step for step, result in enumerate(results) if result.chosen is not None] == [0]
    measured = [step for step, result in enumerate(results) if result.measured is not None]
    assert measured == [MEASURE_EVERY, 2 * MEASURE_EVERY]


@pytest.mark.parametrize("map_steps", [1, 4])
def test_windows_share_recipes_and_not_maps(choices: list[int], map_steps: int) -> None:
    kept, config = Kept(), CALIBRATED.replace(map_steps=map_steps)
    ages = [
        [call(kept, qkv(), at(step, window=window), config).map_age for window in ((0, 1), (1, 2))] for step in range(3)
    ]
    assert choices == [1]
    assert ages == [[step % map_steps] * 2 for step in range(3)]


@pytest.mark.parametrize("map_steps", [1, 3])
def test_prompts_that_guidance_compares_share_all_of_it_together_or_in_turn(choices: list[int], map_steps: int) -> None:
    in_turn, mixed, config = Kept(), Kept(), CALIBRATED.replace(map_steps=map_steps)
    clips, steps = 2, MEASURE_EVERY + 2
    for step in range(steps):
        tensors = qkv(2 * clips)
        sides = [tuple(x[i : i + clips] for x in tensors) for i in (0, clips)]
        results = [call(in_turn, side, at(step), config, step == steps - 1) for side in sides]
        ages = [result.map_age for result in results]
        assert ages == [step % map_steps] * 2
        assert results[1].chosen is None
        assert results[1].measured is None
        out = torch.cat([result.attended.out for result in results])
        if step % 2:
            others = [call(mixed, side, at(step), config, step == steps - 1) for side in sides]
        else:
            others = [call(mixed, tensors, at(step, conditions=2), config)]
        assert torch.equal(torch.cat([result.attended.out for result in others]), out)
    assert choices == [clips, clips]
    assert maps(in_turn) == maps(mixed) == 0


@pytest.mark.parametrize(("prompts", "left"), [(1, [[1], [0], [0]]), (2, [[1, 1], [1, 0], [1, 0]])])
def test_a_map_of_one_step_goes_with_the_last_prompt_that_asks_for_it(prompts: int, left: list[list[int]]) -> None:
    """How many prompts come in turn is known from the second step on."""
    kept, config, found = Kept(), CALIBRATED.replace(map_steps=1), []
    for step in range(3):
        found.append([])
        for _ in range(prompts):
            call(kept, qkv(), at(step), config)
            found[-1].append(maps(kept))
    assert found == left


@pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
def test_prompts_share_through_kernels_as_in_turn() -> None:
    tensors = random_qkv(Shape(4, 2, 256, 256), torch.float16)
    together = Kept().attend(*tensors, FIXED, at(0, conditions=2), "triton").attended
    in_turn = Kept()
    for i in (0, 2):
        side = tuple(x[i : i + 2] for x in tensors)
        assert torch.equal(in_turn.attend(*side, FIXED, at(0), "triton").attended.out, together.out[i : i + 2])


def test_a_batch_that_does_not_divide_among_prompts_is_taken_as_it_is(choices: list[int]) -> None:
    call(Kept(), qkv(3), at(0, conditions=2), CALIBRATED)
    assert choices == [3]


def test_recipes_that_are_chosen_anew_part_with_older_maps(choices: list[int]) -> None:
    kept, config = Kept(), CALIBRATED.replace(map_steps=100)
    diffuse = qkv()
    # All queries look at one key block: hardly any error, until they look everywhere.
    q, k = torch.zeros(2, *diffuse[0].shape)
    q[..., 0], k[..., :32, 0] = 8.0, 8.0
    ages = {}
    for step in range(8):
        result = call(kept, (q, k, diffuse[2]) if step < 3 else diffuse, at(step), config)
        ages[step] = result.map_age
        if result.chosen is not None and step:
            assert step == MEASURE_EVERY + ACT_AFTER
    assert choices == [1, 1]
    assert [ages[step] for step in (5, 6, 7)] == [5, 0, 1]


@pytest.mark.parametrize(("steps", "expected"), [(2, [1]), (4, [2, 3]), (8, [2, 4, 6, 7]), (9, [4, 8])])
def test_runs_of_few_steps_measure_more_often_and_in_the_last(steps: int, expected: list[int]) -> None:
    run = Run(CALIBRATED, "torch")
    for step in range(steps):
        for window in ((0, 1), (1, 2)):
            run.attend(*qkv(), at(step, steps=steps, window=window))
    measured = run.report.calibrated.errors()
    assert [x.step for x in measured] == expected
    assert all(x.layer == 0 and 0 < x.error < 2 for x in measured)
