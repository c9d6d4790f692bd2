"""Permutations of video tokens: that they are ones, and that they keep neighbours together."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from unittest.mock import Mock

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from psa_core import PSAConfig
from psa_core.ops import reorder
from psa_core.ops.reorder import (
    METHODS,
    gilbert,
    lines,
    order_index,
    reorder_orders,
    tile,
)
from psa_core.ops.reorder.gilbert import gilbert_order
from psa_core.ops.reorder.lines import columns_order, rows_order
from psa_core.ops.reorder.orders import inverse
from psa_core.ops.reorder.tile import tile_order
from psa_core.settings.orders import ORDERS, ORDERS_BY_CONTENT

from ..support.tensors import random_orders
from ..support.windows_numpy import WindowsNumpy

Grid = tuple[int, int, int]
CPU = torch.device("cpu")
grids = st.tuples(*[st.integers(1, 32)] * 3)


def is_permutation(order: np.ndarray, grid: Grid) -> bool:
    return order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(np.prod(grid)))


def steps(order: np.ndarray, grid: Grid) -> np.ndarray:
    """How far each step of an order goes along frames, height and width."""
    return np.abs(np.diff(np.stack(np.unravel_index(order, grid)), axis=1))


def spread(order: np.ndarray, grid: Grid, block: int = 128) -> float:
    """Mean squared distance of a token from the centre of its block."""
    position = np.stack(np.unravel_index(order, grid))
    blocks = [position[:, start : start + block] for start in range(0, order.size, block)]
    return float(np.mean([block.var(axis=1).sum() for block in blocks]))


def check_curve(grid: Grid) -> None:
    order = gilbert_order(grid)
    assert is_permutation(order, grid)
    moved = steps(order, grid)
    assert moved.max(initial=0) <= 1
    if all(extent % 2 == 0 for extent in grid):
        assert (moved.sum(0) == 1).all()


class TestGilbert:
    def test_small_grids(self) -> None:
        for grid in itertools.product(range(1, 9), repeat=3):
            check_curve(grid)

    @hypothesis.given(grids)
    def test_larger_grids(self, grid: Grid) -> None:
        check_curve(grid)

    @hypothesis.given(st.tuples(*[st.integers(1, 12)] * 3))
    def test_even_grids_have_no_diagonal_step(self, halves: Grid) -> None:
        frames, height, width = halves
        check_curve((2 * frames, 2 * height, 2 * width))

    @pytest.mark.parametrize("grid", [(13, 30, 45), (21, 30, 52), (21, 45, 80), (31, 44, 80), (1, 1, 5000)])
    def test_grids_of_videos(self, grid: Grid) -> None:
        check_curve(grid)

    def test_boxes_that_are_alike_are_computed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A long clip has 475,200 tokens, and whoever runs it waits for its curve in the first sparse step."""
        cut = Mock(wraps=gilbert._cut)
        monkeypatch.setattr(gilbert, "_cut", cut)
        gilbert_order((33, 90, 160))
        assert cut.call_count < 1000


class TestTile:
    @hypothesis.given(grids, st.tuples(*[st.integers(1, 9)] * 3))
    def test_is_a_permutation(self, grid: Grid, tile: Grid) -> None:
        assert is_permutation(tile_order(grid, tile), grid)

    @hypothesis.given(st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
    def test_whole_tiles_follow_each_other(self, tiles: Grid, tile: Grid) -> None:
        grid = tuple(n * size for n, size in zip(tiles, tile, strict=True))
        order = tile_order(grid, tile).reshape(-1, int(np.prod(tile)))
        position = np.stack(np.unravel_index(order, grid))
        corners = position.min(-1)
        assert (np.ptp(position, axis=-1) + 1 == np.reshape(tile, (3, 1))).all()
        assert (corners % np.reshape(tile, (3, 1)) == 0).all()
        assert np.array_equal(corners.T // tile, list(itertools.product(*map(range, tiles))))


class TestLines:
    @hypothesis.given(grids)
    def test_a_line_of_the_picture_in_all_frames_before_the_next(self, grid: Grid) -> None:
        for order, axes in ((rows_order(grid), (1, 0, 2)), (columns_order(grid), (2, 0, 1))):
            position = np.stack(np.unravel_index(order, grid))[list(axes)]
            extents = [grid[axis] for axis in axes]
            assert np.array_equal(np.ravel_multi_index(position, extents), np.arange(np.prod(grid)))


@pytest.mark.parametrize("method", ["Gilbert", "Tile"])
@pytest.mark.parametrize("grid", [(13, 30, 45), (21, 30, 52), (17, 16, 16)])
def test_blocks_are_more_compact_than_in_raster_order(method: str, grid: Grid) -> None:
    order = METHODS[method](grid, (2, 8, 8))
    assert spread(order, grid) < 0.6 * spread(np.arange(np.prod(grid)), grid)


class TestOrders:
    def test_there_are_all_that_a_recipe_may_name(self) -> None:
        assert {*METHODS, *ORDERS_BY_CONTENT} == set(ORDERS)

    @pytest.mark.parametrize("text", [0, 7])
    def test_a_row_for_each_method(self, text: int) -> None:
        grid, tile_size = (3, 9, 10), (2, 3, 4)
        methods = ("Tile", "Raster", "Gilbert", "Raster")
        index = order_index(methods, grid, tile_size, text, CPU)
        assert index.dtype == torch.int64
        assert index[:, :text].tolist() == [list(range(text))] * 4
        for row, method in zip(index, methods, strict=True):
            assert np.array_equal(row[text:].numpy() - text, METHODS[method](grid, tile_size))
        assert index[1].tolist() == list(range(270 + text))

    def test_of_a_config_all_heads_take_the_same(self) -> None:
        config = PSAConfig(rearrange_method="Tile", tile_size=(1, 3, 3))
        orders = reorder_orders(config, (3, 9, 10), 7, 2, 5, CPU)
        assert orders is not None
        assert torch.equal(orders.index, order_index(("Tile",), (3, 9, 10), (1, 3, 3), 7, CPU))
        assert orders.of_head.dtype == torch.int32
        assert orders.of_head.tolist() == [[0] * 5] * 2
        assert reorder_orders(config.replace(use_rearrange=False), (3, 9, 10), 7, 2, 5, CPU) is None

    def test_settings_tell_them_apart(self) -> None:
        config = PSAConfig(rearrange_method="Tile", tile_size=(2, 4, 4))
        several = [
            reorder_orders(config.replace(**changes), (4, 8, 8), 0, 1, 1, CPU)
            for changes in ({}, {"tile_size": (1, 8, 8)}, {"rearrange_method": "Gilbert"})
        ]
        assert len({tuple(orders.index[0].tolist()) for orders in several}) == 3

    def test_are_made_once(self) -> None:
        first, second = (reorder_orders(PSAConfig(), grid, 2, 2, 3, CPU) for grid in ((3, 5, 7), [3, 5, 7]))
        assert first is not None
        assert second is not None
        assert first.index is second.index
        assert first.of_head is second.of_head

    @pytest.mark.parametrize("n_orders", [1, 3])
    @pytest.mark.parametrize("view", [lambda x: x, lambda x: x.mT.contiguous().mT, lambda x: x[:1].expand(x.shape)])
    def test_each_head_takes_its_own(self, n_orders: int, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x = view(torch.randn(2, 3, 61, 4))
        orders = random_orders(n_orders, 2, 3, 61, CPU)
        taken = orders.take(x)
        for b, h in itertools.product(range(2), range(3)):
            assert torch.equal(taken[b, h], x[b, h, orders.index[orders.of_head[b, h]]])
        assert torch.equal(orders.restore(taken), x)

    @pytest.mark.parametrize("n_orders", [1, 3])
    def test_gradients_go_back_to_their_tokens(self, n_orders: int) -> None:
        x = torch.randn(2, 3, 13, 4, requires_grad=True)
        orders = random_orders(n_orders, 2, 3, 13, CPU)
        weights = torch.randn(2, 3, 13, 4)
        (orders.take(x) * weights).sum().backward()
        assert torch.equal(x.grad, orders.restore(weights))


class TestWindows:
    """Where NumPy counts in int32."""

    @pytest.fixture(autouse=True)
    def _counts_in_int32(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (reorder, gilbert, lines, tile):
            monkeypatch.setattr(module, "np", WindowsNumpy())
        assert tile.np.arange(3).dtype == np.int32

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("grid", [(1, 1, 1), (1, 1, 7), (5, 9, 13)])
    def test_orders_are_int64(self, method: str, grid: Grid) -> None:
        assert is_permutation(METHODS[method](grid, (2, 4, 4)), grid)

    @pytest.mark.parametrize("grid", [(1, 1, 1), (3, 5, 11)])
    def test_indices_are_int64(self, grid: Grid) -> None:
        # This text length is asked for nowhere else, so that nothing is in the cache.
        index = order_index(tuple(METHODS), grid, (1, 3, 3), 71, CPU)
        assert index.dtype == torch.int64
        assert inverse(index).dtype == torch.int64
