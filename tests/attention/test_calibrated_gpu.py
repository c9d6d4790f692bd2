"""Calibrated attention on a GPU, at a size at which it pays: errors against calls, heads alone, and no wait."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from psa_core import PSAConfig, Recipe, pyramid_sparse_attention
from psa_core.attention.choose import candidates, choose_recipes
from psa_core.attention.recipes import Choice
from psa_core.attention.steps import sparse_attention, trial_of
from psa_core.attention.trial_rows import ROWS, trial_blocks
from psa_core.hosts.kept import Kept
from psa_core.hosts.place import Place
from psa_core.ops.importance.estimators import ESTIMATORS
from psa_core.ops.reorder import METHODS, order_index
from psa_core.settings.orders import DEFAULT_CANDIDATE_ORDERS
from psa_core.settings.recipe import MIXES
from psa_core.settings.sinks import text_in_front

from ..ops.test_gpu import BOUND, CUDA, from_projections
from ..support.tensors import Shape

pytestmark = pytest.mark.gpu

GRID, TEXT = (10, 30, 30), 77
TOKENS = TEXT + math.prod(GRID)
VIDEO = {"grid": GRID, "text_length": TEXT}
CASES = [
    (Shape(1, 12, TOKENS, TOKENS, 64, 128, 64), torch.float16, {}),
    (Shape(1, 12, TOKENS, TOKENS, 128, 128, 128), torch.bfloat16, {}),
    (Shape(2, 12, TOKENS, TOKENS, 128, 128, 32), torch.bfloat16, {"use_sim_mask": True}),
    (Shape(2, 12, TOKENS, TOKENS, 64, 64, 64), torch.float16, {"use_sim_mask": True}),
]
# Without the mean: cuBLAS may add up a product of many heads in another order than that of one.
RECIPES = tuple(
    Recipe(order=order, estimator=estimator, mix=mix, density=density)
    for order, estimator, mix, density in itertools.product(METHODS, ESTIMATORS, MIXES, (0.1, 0.3))
    if estimator != "mean"
)
QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def settings(shape: Shape, **changes: object) -> PSAConfig:
    return PSAConfig(mask_mode="calibrated", block_m=shape.block_m, block_n=shape.block_n, **changes)


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def errors_of_call(qkv: QKV, recipe: Recipe, config: PSAConfig) -> torch.Tensor:
    """The error of the call of today with one recipe, in the query blocks of a trial, against float32: ``[B, H]``."""
    out = pyramid_sparse_attention(*qkv, recipe.config(config), **VIDEO, backend="triton")
    index = order_index((recipe.order,), GRID, config.tile_size, TEXT, CUDA)[0]
    blocks = trial_blocks(TOKENS, config.block_m, text_in_front(TEXT))
    size = config.block_m
    at = torch.cat([index[i * size : (i + 1) * size : size // ROWS] for i in blocks])
    q, k, v = (x.float() for x in qkv)
    exact = (q[:, :, at] @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
    return (out[:, :, at].float() - exact).norm(dim=(2, 3)) / exact.norm(dim=(2, 3))


@pytest.mark.parametrize(("shape", "dtype", "changes"), CASES)
def test_heads_choose_by_the_errors_of_calls(shape: Shape, dtype: torch.dtype, changes: dict) -> None:
    qkv, config = from_projections(shape, dtype), settings(shape, **changes)
    choice = choose_recipes(trial_of(*qkv, config, GRID, text_in_front(TEXT), None, "triton"))
    errors = torch.stack([errors_of_call(qkv, recipe, config) for recipe in choice.recipes])
    assert choice.recipes == candidates(0.15, DEFAULT_CANDIDATE_ORDERS)
    its_own = errors.gather(0, choice.of_head[None])[0]
    torch.testing.assert_close(choice.errors, its_own, rtol=0, atol=BOUND[dtype])
    torch.testing.assert_close(choice.errors, errors.amin(0), rtol=0, atol=BOUND[dtype])


@pytest.mark.parametrize(("shape", "dtype", "changes"), CASES)
def test_each_head_runs_as_alone_with_its_recipe(shape: Shape, dtype: torch.dtype, changes: dict) -> None:
    qkv, config = from_projections(shape, dtype), settings(shape, target_error=0.5, **changes)
    heads = shape.batch, shape.heads
    of_head = torch.randperm(len(RECIPES))[: math.prod(heads)].view(heads).to(CUDA)
    choice = Choice(RECIPES, of_head, torch.zeros(heads, device=CUDA), torch.zeros(2, *heads, device=CUDA))
    attended = sparse_attention(*qkv, config, GRID, text_in_front(TEXT), None, "triton", choice)
    out, levels = attended.out, attended.info().levels
    for b, h in itertools.product(*map(range, heads)):
        recipe, head = RECIPES[of_head[b, h]], (slice(b, b + 1), slice(h, h + 1))
        alone, info_alone = pyramid_sparse_attention(
            *(x[head] for x in qkv), recipe.config(config), **VIDEO, backend="triton", return_info=True
        )
        assert torch.equal(levels[head], info_alone.levels), recipe.name
        assert torch.equal(out[head], alone), recipe.name


@pytest.mark.parametrize("target", ["target_density", "target_error"])
def test_choosing_repeats_bit_for_bit_and_never_waits_for_the_gpu(target: str) -> None:
    shape, dtype, changes = CASES[2]
    config = settings(shape, **{target: 0.2}, **changes)
    trial = trial_of(*from_projections(shape, dtype), config, GRID, text_in_front(TEXT), None, "triton")
    first = choose_recipes(trial)
    with no_waiting():
        second = choose_recipes(trial)
    assert all(torch.equal(x, y) for x, y in zip(first[1:], second[1:], strict=True))


@pytest.mark.parametrize("map_steps", [1, 3])
def test_a_run_never_waits_for_the_gpu(map_steps: int) -> None:
    shape, dtype, _ = CASES[2]
    # Random keys are so unlike each other that a cosine cap would leave all blocks at level 1, and no error.
    config = settings(shape, map_steps=map_steps)
    q, k, v = from_projections(shape, dtype)
    # The error of one batch entry grows, which is measured in step 4 and acted on in step 6.
    calm = v + 4 * torch.tensor([1, 0], dtype=dtype, device=CUDA)[:, None, None, None]

    def steps() -> list[int]:
        kept = Kept()
        results = [
            kept.attend(q, k, v if step else calm, config, Place(step, 0, GRID, text_in_front(TEXT)), "triton")
            for step in range(8)
        ]
        return [step for step, result in enumerate(results) if result.chosen is not None]

    assert steps() == [0, 6]
    with no_waiting():
        assert steps() == [0, 6]
