"""Importance whose heads have estimators of their own, bit for bit what these find for all heads."""

from __future__ import annotations

import pytest
import torch

from psa_core.ops.importance.by_head import importance_by_head
from psa_core.ops.importance.estimators import ESTIMATORS
from psa_core.ops.importance.sampling import SAMPLED_MAX, SAMPLED_SUM, sample_of_heads
from psa_core.settings.config import IMPORTANCE_ESTIMATORS

from ..support.tensors import DEVICE, Shape, heads_alone, random_orders, random_qkv
from .test_importance import BACKENDS, needs_triton

NAMES = tuple(ESTIMATORS)
SHAPES = [
    Shape(2, 3, 1, 1, 64, 128, 32),
    Shape(2, 4, 130, 70, 64, 64, 32),
    Shape(1, 5, 257, 161, 128, 128, 64),
    Shape(2, 3, 70, 300, 128, 128, 128),
    Shape(2, 3, 333, 600, 64, 128, 32),
]
# With one, nothing is left to choose: those of one launch, one of them and others, others alone, and all.
SEVERAL = [NAMES[:2], NAMES[1:3], NAMES[2:], NAMES]
# Tiles and tails do not depend on which estimators there are.
CASES = [*((NAMES, shape) for shape in SHAPES), *((names, SHAPES[1]) for names in SEVERAL if names != NAMES)]


def random_numbers(batch: int, heads: int, names: tuple[str, ...]) -> torch.Tensor:
    """Which of the estimators each head has, int32 ``[B, H]``; as many as fit have one at least."""
    numbers = torch.tensor([NAMES.index(name) for name in names], dtype=torch.int32)
    drawn = numbers[torch.arange(batch * heads) % len(numbers)]
    return drawn[torch.randperm(batch * heads)].view(batch, heads).to(DEVICE)


def chosen(of_head: torch.Tensor, *arguments) -> torch.Tensor:
    """Each head's rows out of those that its estimator finds for all heads."""
    by_number = torch.stack([estimate(*arguments) for estimate in ESTIMATORS.values()])
    heads = [by_number[number, b, h] for b, row in enumerate(of_head.tolist()) for h, number in enumerate(row)]
    return torch.stack(heads).view(by_number.shape[1:])


def test_numbers_are_places_among_the_settings_estimators() -> None:
    assert NAMES == IMPORTANCE_ESTIMATORS
    assert (NAMES[SAMPLED_MAX], NAMES[SAMPLED_SUM]) == ("sampled_max", "sampled_sum")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("names", "shape"), CASES)
def test_each_head_gets_what_its_estimator_finds(names: tuple[str, ...], shape: Shape, backend: str) -> None:
    q, k, _ = random_qkv(shape, torch.float16)
    q = q.transpose(1, 2).contiguous().transpose(1, 2)
    of_head = random_numbers(shape.batch, shape.heads, names)
    out = importance_by_head(q, k, shape.block_m, shape.block_n, names, of_head, backend)
    assert out.dtype == torch.float32
    assert out.sum(-1).sub(1).abs().max() < 1e-5
    assert torch.equal(out, chosen(of_head, q, k, shape.block_m, shape.block_n, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_one_estimator_for_all_heads(name: str, backend: str) -> None:
    q, k, _ = random_qkv(Shape(2, 2, 130, 70, 64, 64, 32), torch.float16)
    of_head = random_numbers(2, 2, (name,))
    out = importance_by_head(q, k, 64, 32, (name,), of_head, backend)
    assert torch.equal(out, ESTIMATORS[name](q, k, 64, 32, backend))


@needs_triton
@pytest.mark.parametrize("d", [64, 128])
def test_each_head_as_alone_in_its_order(d: int) -> None:
    q, k, _ = random_qkv(Shape(2, 3, 333, 333, d), torch.float16)
    orders, of_head = random_orders(3, 2, 3, 333), random_numbers(2, 3, NAMES)
    out = importance_by_head(q, k, 128, 32, NAMES, of_head, "triton", orders)
    for head, order in heads_alone(orders):
        estimate = ESTIMATORS[NAMES[of_head[head].item()]]
        assert torch.equal(out[head], estimate(q[head], k[head], 128, 32, "triton", order))


def test_torch_takes_orders_for_the_sampled_ones() -> None:
    names = "sampled_max", "sampled_sum"
    q, k, _ = random_qkv(Shape(2, 3, 333, 333, 64), torch.float16)
    orders, of_head = random_orders(3, 2, 3, 333), random_numbers(2, 3, names)
    out = importance_by_head(q, k, 128, 32, names, of_head, "torch", orders)
    of_all = [ESTIMATORS[name](q, k, 128, 32, "torch", orders) for name in names]
    assert torch.equal(out, torch.where(of_head[..., None, None] == SAMPLED_MAX, *of_all))


@needs_triton
def test_the_launch_writes_nothing_for_other_estimators() -> None:
    from psa_core.ops.importance.triton import sampled_triton

    q, k, _ = random_qkv(Shape(2, 3, 300, 300, 64), torch.float16)
    of_head = torch.tensor([[SAMPLED_MAX, 2, SAMPLED_SUM], [2, 7, SAMPLED_MAX]], dtype=torch.int32, device=DEVICE)
    scores = sampled_triton(q, k, sample_of_heads(q, None), sample_of_heads(k, None), 128, 32, of_head)
    sampled = of_head < 2
    assert scores[sampled].isfinite().all()
    # Fresh memory holds NaN.
    assert scores[~sampled].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("names", SEVERAL, ids="+".join)
def test_no_other_estimator_is_computed(names: tuple[str, ...], backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(NAMES) - set(names):
        monkeypatch.setitem(ESTIMATORS, name, None)
    q, k, _ = random_qkv(Shape(1, 3, 130, 70, 64, 64, 32), torch.float16)
    out = importance_by_head(q, k, 64, 32, names, random_numbers(1, 3, names), backend)
    assert out.isfinite().all()
