"""Tensors are read again where what they say may be another thing, and not where it cannot."""

from __future__ import annotations

import pytest
import torch

from psa_core.hosts.read_once import _found, read_once


def test_the_same_tensors_are_read_once() -> None:
    reads: list[int] = []

    def total(*tensors: torch.Tensor) -> int:
        reads.append(sum(int(x.sum()) for x in tensors))
        return reads[-1]

    mask, other = torch.ones(4), torch.ones(3)
    assert [read_once(total, mask) for _ in range(3)] == [4] * 3
    assert [read_once(total, mask, other) for _ in range(3)] == [7] * 3
    assert reads == [4, 7]
    # Another tensor, be it on the same memory.
    assert read_once(total, mask[:2]) == 2
    other[0] = 5
    assert [read_once(total, mask, other), read_once(total, mask)] == [11, 4]
    assert reads == [4, 7, 2, 11]


def test_another_question_is_another_reading() -> None:
    mask = torch.tensor([0.0, 2.0])
    assert [read_once(torch.sum, mask), read_once(torch.prod, mask)] == [2, 0]


def test_nothing_is_left_of_tensors_that_are_gone() -> None:
    before = len(_found)
    masks = [torch.full((4,), float(value)) for value in range(8)]
    assert [int(read_once(torch.sum, mask)) for mask in masks] == [4 * value for value in range(8)]
    assert len(_found) == before + 8
    masks.clear()
    assert len(_found) == before


@pytest.mark.parametrize("changes", [True, False])
def test_changes_under_inference_mode_are_not_counted(changes: bool) -> None:
    with torch.inference_mode():
        mask = torch.zeros(4)
        assert read_once(_any, mask, changes_in_inference=changes) is False
        mask[0] = 1
        assert read_once(_any, mask, changes_in_inference=changes) is changes


def _any(mask: torch.Tensor) -> bool:
    return bool(mask.any())
