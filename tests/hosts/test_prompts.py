"""Which prompts of a run share what is kept: those that guidance compares."""

from __future__ import annotations

import pytest
import torch

from psa_core.hosts.prompts import Prompts, PromptsOfRun

POSITIVE, NEGATIVE = 0, 1


def of(run: PromptsOfRun, *prompts: tuple[int, str], step: int = 0) -> Prompts:
    return run.of(step, [kind for kind, _ in prompts], [name for _, name in prompts])


def test_with_and_without_the_prompt_share_together_and_in_turn() -> None:
    run = PromptsOfRun()
    assert of(run, (NEGATIVE, "n"), (POSITIVE, "p")) == Prompts(None, 2)
    assert of(run, (NEGATIVE, "n")) == of(run, (POSITIVE, "p")) == Prompts(None, 1)


def test_a_second_prompt_of_a_kind_stands_for_itself() -> None:
    run = PromptsOfRun()
    assert of(run, (POSITIVE, "left")) == Prompts(None, 1)
    assert of(run, (POSITIVE, "right")) == Prompts(("right",), 1)
    assert of(run, (POSITIVE, "left"), (POSITIVE, "right"), (NEGATIVE, "n")) == Prompts(("left", "right", "n"), 1)
    assert of(run, (NEGATIVE, "n"), (POSITIVE, "left")) == Prompts(None, 2)


def test_a_prompt_that_takes_the_place_of_another_shares_from_its_second_step_on() -> None:
    run = PromptsOfRun()
    for step, (positive, shared) in enumerate([("a", True), ("a", True), ("b", False), ("b", True), ("b", True)]):
        expected = Prompts(None, 2) if shared else Prompts(("n", positive), 1)
        assert of(run, (NEGATIVE, "n"), (POSITIVE, positive), step=step) == expected, step


def test_of_two_in_every_step_the_first_stays_the_first() -> None:
    run = PromptsOfRun()
    for step in range(3):
        assert of(run, (NEGATIVE, "n"), (POSITIVE, "left"), step=step) == Prompts(None, 2)
        assert of(run, (POSITIVE, "right"), step=step) == Prompts(("right",), 1)


def test_a_negative_prompt_that_is_left_out_for_a_step_comes_back() -> None:
    run = PromptsOfRun()
    for step in range(4):
        prompts = [(NEGATIVE, "n"), (POSITIVE, "p")][step % 2 :]
        assert of(run, *prompts, step=step) == Prompts(None, len(prompts))


def test_a_prompt_that_is_asked_for_alone_is_known_by_its_name() -> None:
    run = PromptsOfRun()
    of(run, (NEGATIVE, "n"), (POSITIVE, "p"))
    assert of(run, (POSITIVE, "n")) == of(run, (POSITIVE, "p")) == Prompts(None, 1)


def test_who_says_nothing_of_prompts_has_one() -> None:
    assert PromptsOfRun().of(0, [], []) == Prompts(None, 1)
    assert PromptsOfRun().of(0, [POSITIVE, NEGATIVE], []) == Prompts(None, 2)


@pytest.mark.parametrize(("batch", "conditions"), [(1, 1), (2, 2), (3, 1), (4, 2)])
def test_of_a_pipeline_s_batch_latents_tell(batch: int, conditions: int) -> None:
    pytest.importorskip("diffusers")
    from psa_core.hosts.diffusers.denoising import _conditions

    latents = torch.randn(max(batch // 2, 1), 4, 3, 2, 2)
    assert _conditions(torch.cat([latents, latents, latents])[:batch]) == conditions
    assert _conditions(torch.randn(batch, 4, 3, 2, 2)) == 1
