"""K-means of tokens against its oracle, and the orders that clusters make."""

from __future__ import annotations

import itertools

import pytest
import torch

from psa_core.ops.reorder import clusters as module
from psa_core.ops.reorder import order_index, orders_of_heads
from psa_core.ops.reorder.by_content import cluster_content, content_index
from psa_core.ops.reorder.clusters import CLUSTERS, FIT_STRIDE, Clusters, cluster
from psa_core.ops.reorder.naive import cluster_naive
from psa_core.ops.reorder.tile import tile_numbers

from ..support.tensors import DEVICE

SHAPES = [(1, 1, 1, 64), (1, 2, 5, 64), (2, 3, 333, 64), (1, 2, 501, 128)]


def tokens(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Tokens around a few places far from zero, heads inside tokens as models have them."""
    b, h, n, d = shape
    places = 2 * torch.randn(b, 24, h, d) + 5
    x = places[:, torch.randint(24, (n,))] + 0.7 * torch.randn(b, n, h, d)
    return x.to(DEVICE, dtype).transpose(1, 2)


def check(x: torch.Tensor, found: Clusters, expected: Clusters) -> None:
    """Equal centroids, of which there are some where there are few tokens, may stand for each other."""
    assert found.nearest.dtype == torch.int32
    torch.testing.assert_close(found.centroids, expected.centroids)
    torch.testing.assert_close(squared_distances(x, found), squared_distances(x, expected))


def squared_distances(x: torch.Tensor, found: Clusters) -> torch.Tensor:
    """Of the tokens of each head to their centroids, ``[B, H, L]``."""
    at = found.nearest.long()[..., None].expand(-1, -1, -1, x.shape[3])
    return (x.double() - found.centroids.double().gather(2, at)).square().sum(3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("poisoned_memory")
def test_from_nothing_and_from_an_earlier_step(shape: tuple[int, ...]) -> None:
    x = tokens(shape)
    first = cluster(x)
    check(x, first, cluster_naive(x))
    later = x + 0.1 * torch.randn_like(x)
    check(later, cluster(later, first.centroids), cluster_naive(later, first.centroids))


@pytest.mark.parametrize("numbers", [1, 2 * 3 * 64 * 7])
def test_some_tokens_at_a_time_are_as_all_at_once(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = tokens((2, 3, 90, 64))
    expected = cluster(x)
    monkeypatch.setattr(module, "CLUSTERED_AT_ONCE", numbers)
    check(x, cluster(x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_few_bits_tokens_find_their_places(dtype: torch.dtype) -> None:
    """Places far from zero, and far enough from each other that no rounding tells on which side a token lies."""
    of_token = torch.randint(CLUSTERS, (800,))
    # Centroids begin at one token of each place: two in the same one would share it as their bits have it.
    of_token[25::50] = torch.randperm(CLUSTERS)
    places = 40 + 2 * torch.randn(1, 2, CLUSTERS, 64)
    x = (places[:, :, of_token] + 0.7 * torch.randn(1, 2, 800, 64)).to(DEVICE, dtype)
    found, expected = cluster(x), cluster_naive(x)
    assert found.centroids.dtype == dtype
    assert torch.equal(found.nearest, expected.nearest)
    assert (found.nearest == of_token[25::50].argsort()[of_token].to(DEVICE)).all()
    torch.testing.assert_close(found.centroids, expected.centroids.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_large_sums_stay_finite_in_float16() -> None:
    x = torch.full((1, 1, 60_000, 8), 40.0, dtype=torch.float16, device=DEVICE)
    assert cluster(x).centroids.isfinite().all()


def test_the_same_every_time_and_no_random_number_is_drawn() -> None:
    x, state = tokens((1, 2, 333, 64), torch.float32), torch.get_rng_state()
    first, second = cluster(x), cluster(x)
    assert torch.equal(first.nearest, second.nearest)
    assert torch.equal(first.centroids, second.centroids)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_cluster_without_tokens_keeps_its_centroid() -> None:
    x = tokens((1, 1, 300, 64))
    start = x[:, :, ::FIT_STRIDE][:, :, :CLUSTERS].clone()
    start[:, :, 3] = 1000.0
    assert torch.equal(cluster(x, start).centroids[:, :, 3], start[:, :, 3])


class TestOrders:
    GRID, TILE, TEXT = (3, 9, 10), (2, 4, 5), 7

    @pytest.mark.parametrize("method", ["Semantic", "Hybrid"])
    def test_clusters_follow_each_other_within_tiles_or_without(self, method: str) -> None:
        nearest = torch.randint(CLUSTERS, (2, 3, 270), dtype=torch.int32, device=DEVICE)
        index = content_index(method, nearest, self.GRID, self.TILE, self.TEXT)
        assert index.dtype == torch.int32
        assert index[:, : self.TEXT].tolist() == [list(range(self.TEXT))] * 6
        tile = tile_numbers(self.GRID, self.TILE) if method == "Hybrid" else [0] * 270
        for order, of_token in zip(index[:, self.TEXT :] - self.TEXT, nearest.flatten(0, 1).tolist(), strict=True):
            assert order.tolist() == sorted(range(270), key=lambda i, of=of_token: (tile[i], of[i], i))

    def test_each_head_has_its_own_or_one_by_place(self) -> None:
        methods = ("Gilbert", "Semantic", "Raster", "Hybrid")
        # Two tokens behind the queries' part of the video stay there.
        q, k = tokens((2, 3, 279, 64)), tokens((2, 3, 277, 64))
        content = cluster_content(q[:, :, self.TEXT : -2], k[:, :, self.TEXT :])
        of_head = torch.tensor([[0, 1, 2], [3, 1, 3]], dtype=torch.int32, device=DEVICE)
        orders = orders_of_heads(methods, of_head, self.GRID, self.TILE, self.TEXT, (279, 277), content)
        for x, clusters, mine, behind in ((q, content.q, orders.of_queries, 2), (k, content.k, orders, 0)):
            assert mine is not None
            taken = mine.take(x)
            assert torch.equal(mine.restore(taken), x)
            for b, h in itertools.product(range(2), range(3)):
                method = methods[of_head[b, h]]
                if method in ("Semantic", "Hybrid"):
                    expected = content_index(
                        method, clusters.nearest[b : b + 1, h : h + 1], self.GRID, self.TILE, self.TEXT, behind
                    )
                else:
                    expected = order_index((method,), self.GRID, self.TILE, self.TEXT, DEVICE, behind)
                assert torch.equal(taken[b, h], x[b, h, expected[0]])

    def test_by_place_alone_they_are_as_ever(self) -> None:
        of_head = torch.tensor([[0, 1]], dtype=torch.int32, device=DEVICE)
        orders = orders_of_heads(("Gilbert", "Rows"), of_head, self.GRID, self.TILE, self.TEXT, (277, 277))
        assert orders.index is order_index(("Gilbert", "Rows"), self.GRID, self.TILE, self.TEXT, DEVICE)
        assert orders.of_head is of_head
        assert orders.of_queries is None
