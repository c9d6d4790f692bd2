"""Cached tensors: the same ones every time, whatever mode the first call was made in."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import psa_core
from psa_core import PSAConfig, RadialMask, Recipe
from psa_core.attention import calibrate, plan, recipes
from psa_core.ops.backends import triton_installed
from psa_core.ops.block_positions import block_positions
from psa_core.ops.causal import Causal, hidden_keys, own_blocks, seen_runs
from psa_core.ops.constant import constant
from psa_core.ops.device_cache import clear_device_caches
from psa_core.ops.importance.sampling import sample_positions
from psa_core.ops.levels.bounds import row_bounds
from psa_core.ops.levels.sinks import sink_tables
from psa_core.ops.reorder import by_content, order_index
from psa_core.ops.reorder.orders import as_they_lie, first_order
from psa_core.settings.sinks import Sink

CPU = torch.device("cpu")
RECIPES = tuple(Recipe(order=order, estimator="mean", mix="tail", density=0.2) for order in ("Raster", "Rows"))
MASKED = PSAConfig(radial=RadialMask(mode="coarsen", decay_factor=0.2, block_size=8))
needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
# A number that no other test has asked for, so that the first call fills the cache.
numbers = itertools.count(1000)


def index_of(n: int) -> torch.Tensor:
    """The index of two orders, an object of its own."""
    return order_index(("Raster", "Gilbert"), (1, 1, n), (2, 4, 4), 0, CPU)


def every_head(n: int) -> torch.Tensor:
    from psa_core.ops.pyramid.triton import every_head

    return every_head(2, n, CPU)


CASES: dict[str, Callable[[int], Any]] = {
    "_given": lambda n: calibrate._given(RECIPES, (0, 1, 0), (n / 7, 0.1, 0.2), 2, CPU),
    "_table": lambda n: recipes._table(RECIPES, 128, (n,), CPU)[-1],
    "as_they_lie": lambda n: as_they_lie(2, 3, n, CPU),
    "block_positions": lambda n: block_positions((0, 2), 64, n, CPU),
    "constant": lambda n: constant((n, 2.5), torch.float32, CPU),
    "_cached_index": index_of,
    "every_head": every_head,
    "own_blocks": lambda n: own_blocks(Causal(n, n + 9, 64, 32), None, CPU),
    "hidden_keys": lambda n: hidden_keys(Causal(n, n + 9, 64, 32), CPU),
    "seen_runs": lambda n: seen_runs(Causal(n, n + 9, 64, 32), 8, 8, None, CPU),
    "row_bounds": lambda n: row_bounds(PSAConfig(), n, CPU, Causal(n, n, 128, 128)),
    "first_order": lambda n: first_order(2, n, CPU),
    "sample_positions": lambda n: sample_positions(n, CPU),
    "sink_tables": lambda n: sink_tables((Sink(0, 3),), 64, 32, n, n, CPU),
    "_tiles": lambda n: by_content._tiles((1, 1, n), (2, 4, 4), CPU),
    "_mask_levels": lambda n: plan.mask_levels(MASKED, (2, 1, n), (), 2 * n, CPU),
    "_mask_level_shares": lambda n: plan.mask_level_shares(MASKED, (2, 1, n), (), 2 * n, CPU),
    "_mask_block_list": lambda n: plan.mask_block_list(MASKED, (2, 1, n), (), 2 * n, 8, CPU),
}
KERNELS = ("_mask_block_list", "every_head")
each_function = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name, marks=needs_triton if name in KERNELS else ()) for name, make in CASES.items()]
)
# Kernels run on real tensors alone.
each_without_kernels = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in CASES.items() if name not in KERNELS]
)


def tensors(made: Any) -> list[torch.Tensor]:
    return [made] if isinstance(made, torch.Tensor) else [x for x in made if isinstance(x, torch.Tensor)]


def check_real(made: Any, expected: Any) -> None:
    for x, y in zip(tensors(made), tensors(expected), strict=True):
        assert type(x) is torch.Tensor
        assert not x.is_inference()
        assert not torch._C._functorch.is_functorch_wrapped_tensor(x)
        assert torch.equal(x, y)


def test_every_cache_is_here() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(psa_core.__path__[0]).rglob("*.py")]
    decorated = re.findall(r"^@device_cache\(.*\)\ndef (\w+)", "\n".join(sources), re.MULTILINE)
    assert sorted(decorated) == sorted(CASES)
    assert "\n".join(sources).count("torch.inference_mode(False)(") == 1


@each_function
def test_the_same_tensors_every_time(make: Callable[[int], Any]) -> None:
    n = next(numbers)
    assert all(x is y for x, y in zip(tensors(make(n)), tensors(make(n)), strict=True))


@each_function
def test_what_is_let_go_is_made_again(make: Callable[[int], Any]) -> None:
    n = next(numbers)
    before = make(n)
    clear_device_caches()

    after = make(n)

    assert not any(x is y for x, y in zip(tensors(before), tensors(after), strict=True))
    check_real(after, before)


@each_without_kernels
@pytest.mark.parametrize("fake_first", [True, False])
def test_fake_tensors_stay_with_their_mode(make: Callable[[int], Any], fake_first: bool) -> None:
    n = next(numbers)
    expected = None if fake_first else make(n)
    with FakeTensorMode():
        fakes = tensors(make(n))
        # What goes with them is fake, too.
        assert all(isinstance(x + torch.zeros_like(x), FakeTensor) for x in fakes)
    real = make(n)
    assert [(x.shape, x.dtype) for x in fakes] == [(x.shape, x.dtype) for x in tensors(real)]
    check_real(real, real if expected is None else expected)


@each_function
@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, torch.no_grad, partial(FlopCounterMode, display=False)],
    ids=["inference", "no grad", "flops"],
)
def test_made_in_a_mode_of_real_tensors(make: Callable[[int], Any], mode: Callable[[], AbstractContextManager]) -> None:
    n = next(numbers)
    with mode():
        inside = make(n)
    check_real(make(n), inside)


@each_without_kernels
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.functionalize])
def test_made_in_a_transform(make: Callable[[int], Any], transform: Callable[..., Any]) -> None:
    n = next(numbers)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (x * tensors(make(n))[0].sum()).sum()

    transform(loss)(torch.ones(1))
    real = make(n)
    check_real(real, real)


def test_autograd_takes_what_was_made_in_inference_mode() -> None:
    n = next(numbers)
    with torch.inference_mode():
        constant((n, 0.5), torch.float32, CPU)
    weights = torch.ones(2, requires_grad=True)
    (weights * constant((n, 0.5), torch.float32, CPU)).sum().backward()
    assert weights.grad.tolist() == [n, 0.5]
