"""Errors of level maps on trial: those that a call with such a map has, in the query blocks of the trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch

from psa_core import PSAConfig, RadialMask, Recipe, pyramid_sparse_attention
from psa_core.attention.choose import candidates
from psa_core.attention.errors import Errors
from psa_core.attention.steps import trial_of
from psa_core.attention.trial import Trial, measure_again
from psa_core.attention.trial_rows import trial_blocks
from psa_core.ops.backends import triton_installed
from psa_core.ops.reorder import order_index
from psa_core.settings.orders import DEFAULT_CANDIDATE_ORDERS
from psa_core.settings.sinks import text_in_front

from ..support.tensors import DEVICE, Shape, random_levels, random_qkv, softmax_attention

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
GRID, TEXT = (3, 14, 18), 21
TOKENS = 777
# Whose columns hold a whole number of blocks.
GRID_OF_COLUMNS = (16, 32, 48)
RADIAL = RadialMask(decay_factor=0.5, block_size=32)


class Case(NamedTuple):
    """Tensors of a call, and the arguments that come after them."""

    shape: Shape
    changes: Mapping[str, Any] = MappingProxyType({})
    grid: tuple[int, int, int] | None = GRID
    text: int = TEXT
    static: torch.Tensor | None = None

    @property
    def config(self) -> PSAConfig:
        sizes = {"block_m": self.shape.block_m, "block_n": self.shape.block_n}
        return PSAConfig(mask_mode="calibrated", **sizes, **self.changes)


SMALL = Shape(2, 2, TOKENS, TOKENS, 64, 64, 32)
CASES = {
    "text and grid": Case(SMALL),
    "blocks of 128": Case(Shape(1, 2, TOKENS, TOKENS, 32, 128, 128)),
    "no grid": Case(SMALL, grid=None),
    "capped": Case(SMALL, {"use_sim_mask": True, "sim_thresholds": {"x2": 0.1, "x4": 0.1, "x8": 0.1}}),
    "cut by a mask": Case(SMALL, {"radial": RADIAL.replace(mode="intersect")}),
    "finer by a mask": Case(SMALL, {"radial": RADIAL.replace(mode="finer wins")}),
    "static levels": Case(SMALL, static=random_levels(SMALL)[:, :1]),
    "other keys": Case(Shape(1, 2, 300, 200, 64, 64, 32), grid=None),
    "few blocks": Case(Shape(1, 2, 270, 270, 64, 64, 32), grid=(1, 15, 16), text=30),
    "one block": Case(Shape(1, 2, 128, 128, 64, 128, 32), grid=None, text=0),
    "a ragged block": Case(Shape(2, 1, 99, 99, 64, 128, 32), grid=(1, 9, 11), text=0),
    "a ragged block after text": Case(Shape(1, 2, 250, 250, 64, 128, 32), grid=(1, 10, 10), text=150),
    "a ragged block beside text": Case(Shape(1, 2, 250, 250, 64, 128, 32), grid=(1, 13, 10), text=120),
    "nothing but text": Case(Shape(1, 1, 200, 200, 64, 128, 32), grid=None, text=200),
    "one token": Case(Shape(1, 1, 1, 1, 64, 64, 32), grid=(1, 1, 1), text=0),
}


def tensors(shape: Shape, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values; neighbours' keys are alike, so that a cosine cap leaves some blocks a coarse level.

    In float64 no two blocks of a row are equal up to rounding, so that whoever ranks them comes to the same level map.
    """
    q, k, v = random_qkv(shape, dtype)
    drift = torch.randn(*k.shape[:2], 1, shape.d) * torch.linspace(0, 2, k.shape[2])[:, None]
    return q, k + drift.to(k), v


def trial_and_errors(case: Case, qkv: tuple[torch.Tensor, ...], recipe: Recipe, backend: str) -> tuple[Trial, Errors]:
    trial = trial_of(*qkv, case.config, case.grid, text_in_front(case.text), case.static, backend)
    (here,) = trial.in_orders([trial.one_order(recipe.order)])
    return trial, here.errors([here.levels(here.importance(recipe.estimator), recipe.config(case.config))])


def call(case: Case, qkv: tuple[torch.Tensor, ...], recipe: Recipe, backend: str) -> torch.Tensor:
    """The call of today with one recipe for all heads, tokens in the order that came with them."""
    config = recipe.config(case.config)
    extra = {"grid": case.grid, "text_length": case.text, "static_levels": case.static}
    return pyramid_sparse_attention(*qkv, config, **extra, backend=backend)


def squares_by_block(x: torch.Tensor, blocks: tuple[int, ...], size: int) -> torch.Tensor:
    """Squared norms of some blocks, of each 32 rows, ``[B, H, blocks]``."""
    rows = [x[:, :, i * size : (i + 1) * size : size // 32] for i in blocks]
    return torch.stack([of_block.double().square().sum((2, 3)) for of_block in rows], -1)


def errors_of_call(case: Case, qkv: tuple[torch.Tensor, ...], recipe: Recipe, out: torch.Tensor) -> torch.Tensor:
    """Squared norms of what is wrong and of what is right, float64 ``[2, B, H, blocks]``."""
    exact = softmax_attention(*qkv)
    if case.grid is not None:
        index = order_index((recipe.order,), case.grid, case.config.tile_size, case.text, DEVICE)[0]
        out, exact = out[:, :, index], exact[:, :, index]
    blocks = trial_blocks(out.shape[2], case.shape.block_m, text_in_front(case.text))
    return torch.stack([squares_by_block(x, blocks, case.shape.block_m) for x in (out.double() - exact, exact)])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_errors_are_those_of_calls(case: Case) -> None:
    qkv = tensors(case.shape)
    orders = trial_of(*qkv, case.config, case.grid, text_in_front(case.text), case.static, "torch").orders
    masked = case.static is not None or case.config.radial is not None
    assert orders == (("Raster",) if case.grid is None or masked else DEFAULT_CANDIDATE_ORDERS)
    for recipe in candidates(0.2, orders):
        _, errors = trial_and_errors(case, qkv, recipe, "torch")
        wrong, right = errors_of_call(case, qkv, recipe, call(case, qkv, recipe, "torch"))
        torch.testing.assert_close(errors.right[0].double(), right, rtol=1e-4, atol=0)
        torch.testing.assert_close(errors.wrong[0].double().sqrt(), wrong.sqrt(), rtol=1e-4, atol=1e-4)
        relative = (wrong.sum(-1) / right.sum(-1)).sqrt()
        torch.testing.assert_close(errors.relative()[0].double(), relative, rtol=1e-4, atol=2e-6)


@needs_triton
@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("few blocks", Recipe(order="Gilbert", estimator="sampled_sum", mix="pyramid", density=0.3)),
        ("few blocks", Recipe(order="Raster", estimator="sampled_max", mix="level 1", density=0.3)),
        ("a ragged block", Recipe(order="Gilbert", estimator="sampled_sum", mix="tail", density=0.3)),
        ("other keys", Recipe(order="Raster", estimator="sampled_sum", mix="tail", density=0.1)),
    ],
)
@pytest.mark.usefixtures("poisoned_memory")
def test_errors_in_triton_are_those_of_calls(name: str, recipe: Recipe) -> None:
    case = CASES[name]._replace(changes={"use_sim_mask": True})
    qkv = tensors(case.shape, torch.float16)
    _, errors = trial_and_errors(case, qkv, recipe, "triton")
    wrong, right = errors_of_call(case, qkv, recipe, call(case, qkv, recipe, "triton"))
    expected = (wrong.sum(-1) / right.sum(-1)).sqrt()
    torch.testing.assert_close(errors.relative()[0].double(), expected, rtol=0, atol=2e-3)


@needs_triton
@pytest.mark.parametrize("estimator", ["sampled_max", "sub_block_mass"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.usefixtures("poisoned_memory")
def test_orders_side_by_side_are_each_as_alone(estimator: str, batch: int) -> None:
    case = CASES["few blocks"]
    q, k, v = tensors(case.shape._replace(batch=batch), torch.float16)
    trial = trial_of(q, k, v, case.config, case.grid, text_in_front(case.text), None, "triton")
    trials = trial.in_orders([trial.one_order(order) for order in ("Gilbert", "Semantic", "Raster")])
    together = trial.importance(trials, estimator)
    for importance, here in zip(together, trials, strict=True):
        torch.testing.assert_close(importance, here.importance(estimator), rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=needs_triton)])
@pytest.mark.parametrize("name", ["few blocks", "a ragged block"])
def test_measured_again_are_two_of_its_blocks(name: str, backend: str) -> None:
    case = CASES[name]
    qkv = tensors(case.shape, torch.float16 if backend == "triton" else torch.float64)
    recipe = Recipe(order="Gilbert", estimator="sampled_max", mix="level 1", density=0.3)
    trial, errors = trial_and_errors(case, qkv, recipe, backend)
    out = call(case, qkv, recipe, backend)
    again = measure_again(trial, trial.one_order("Gilbert"), out)
    wrong_and_right = errors_of_call(case, qkv, recipe, out)[..., :2].sum(-1)
    torch.testing.assert_close(again.double(), wrong_and_right, rtol=1e-4 if backend == "torch" else 1e-2, atol=0)
    first_map = torch.zeros(again.shape[1:], dtype=torch.int64, device=again.device)
    torch.testing.assert_close(errors.spot(first_map), again, rtol=1e-4 if backend == "torch" else 1e-2, atol=0)


def test_spot_is_two_blocks_apart_of_the_trial_s_own_choice_of_map() -> None:
    wrong, right = torch.rand(3, 2, 4, 8), torch.rand(3, 2, 4, 8)
    of_head = torch.randint(3, (2, 4))
    spot = Errors(wrong, right).spot(of_head)
    for b in range(2):
        for h in range(4):
            for i, squares in enumerate((wrong, right)):
                torch.testing.assert_close(spot[i, b, h], squares[of_head[b, h], b, h, [2, 5]].sum())


@pytest.mark.parametrize(
    ("tokens", "text", "blocks"),
    [
        (64 * 8, 0, (0, 1, 2, 3, 4, 5, 6, 7)),
        (64 * 8 + 63, 1, (1, 2, 3, 4, 5, 6, 7)),
        (64 * 9, 0, (0, 1, 2, 3, 4, 5, 6, 7)),
        (64 * 18 + 5, 128, (2, 4, 6, 8, 10, 12, 14, 16)),
        (64 * 800, 0, (61, 123, 284, 346, 408, 570, 632, 793)),
        (64 * 2, 64, (1,)),
        (64 * 2 + 1, 65, (2,)),
        (63, 0, (0,)),
        (64, 64, (0,)),
        (1, 1, (0,)),
    ],
)
def test_its_blocks_are_whole_and_spread_behind_the_text(tokens: int, text: int, blocks: tuple[int, ...]) -> None:
    assert trial_blocks(tokens, 64, text_in_front(text)) == blocks


def test_its_blocks_are_eight_one_in_each_eighth() -> None:
    for count in range(8, 2000, 7):
        blocks = trial_blocks(64 * count + 1, 64, ())
        assert len(set(blocks)) == 8
        assert all(8 * block + 8 > i * count and 8 * block < (i + 1) * count for i, block in enumerate(blocks))


def test_its_blocks_do_not_stand_where_a_picture_s_columns_do() -> None:
    """In an order of columns, evenly spaced blocks of this clip are all from two of its frames."""
    column = math.prod(GRID_OF_COLUMNS[:2])
    blocks = trial_blocks(math.prod(GRID_OF_COLUMNS), 64, ())
    in_column = [block * 64 % column / column for block in blocks]
    assert len({int(4 * part) for part in in_column}) == 4
