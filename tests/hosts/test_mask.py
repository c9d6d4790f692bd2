"""Masks that mask nothing are none."""

from __future__ import annotations

import pytest
import torch

from psa_core.hosts.mask import masks_something
from psa_core.hosts.read_once import _found


@pytest.mark.parametrize(
    ("mask", "something"),
    [
        (torch.ones(1, 1, 1, 9, dtype=torch.bool), False),
        (torch.tensor([True, False]), True),
        (torch.zeros(1, 9), False),
        (torch.tensor([0.0, float("-inf")]), True),
        (torch.tensor([0.0, 0.5]), True),
        (torch.zeros(3, dtype=torch.float16), False),
    ],
)
def test_ones_to_see_and_zeros_to_add_mask_nothing(mask: torch.Tensor, something: bool) -> None:
    assert masks_something(mask) is something


@pytest.mark.parametrize("inference", [False, True])
def test_a_tensor_is_read_once_while_it_lives_and_stays_as_it_is(inference: bool) -> None:
    with torch.inference_mode(inference):
        mask = torch.zeros(4)
    before = len(_found)
    assert [masks_something(mask) for _ in range(3)] == [False] * 3
    assert len(_found) == before + 1
    if not inference:
        mask[1] = 1.0
        assert masks_something(mask)
    del mask
    assert len(_found) == before
