"""Importance of key blocks: sampling, and both estimators against their oracles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core.ops.backends import triton_installed
from psa_core.ops.importance import torch as importance_torch
from psa_core.ops.importance.estimators import ESTIMATORS, mean, sampled_max, sampled_sum, sub_block_mass
from psa_core.ops.importance.naive import mean_naive, sampled_max_naive, sampled_sum_naive, sub_block_mass_naive
from psa_core.ops.importance.sampling import sample_of_heads, sample_positions
from psa_core.ops.launch import Launch
from psa_core.ops.pyramid.naive import pooled_rows

from ..support.tensors import DEVICE, Shape, heads_alone, random_orders, random_qkv, relative_error

CPU = torch.device("cpu")
SAMPLED_NAIVE = {"sampled_max": sampled_max_naive, "sampled_sum": sampled_sum_naive}
each_sampled = pytest.mark.parametrize("name", SAMPLED_NAIVE)
SHAPES = [
    Shape(1, 1, 1, 1, 64, 128, 32),
    Shape(2, 2, 130, 3, 64, 64, 32),
    Shape(1, 3, 257, 161, 128, 128, 64),
    Shape(2, 1, 70, 300, 64, 128, 128),
    Shape(1, 1, 600, 1200, 64, 128, 32),
]
needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
VIEWS = [
    lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    lambda x: x.mT.contiguous().mT,
    lambda x: torch.stack([x, torch.full_like(x, float("nan"))], -1)[..., 0],
    lambda x: x[:1].expand(x.shape),
]
any_view = pytest.mark.parametrize(
    "view", VIEWS, ids=["heads after tokens", "tokens innermost", "every second number", "expanded batch"]
)


def by_definition(q: torch.Tensor, k: torch.Tensor, shape: Shape, name: str = "sampled_max") -> torch.Tensor:
    q_sample, k_sample = sample_positions(shape.q_tokens, q.device), sample_positions(shape.k_tokens, k.device)
    return SAMPLED_NAIVE[name](q, k, q_sample, k_sample, shape.block_m, shape.block_n)


def sum_by_definition(q: torch.Tensor, k: torch.Tensor, shape: Shape) -> torch.Tensor:
    return by_definition(q, k, shape, "sampled_sum")


def mean_by_definition(q: torch.Tensor, k: torch.Tensor, shape: Shape) -> torch.Tensor:
    return mean_naive(q, k, shape.block_m, shape.block_n)


def sub_block_mass_by_definition(q: torch.Tensor, k: torch.Tensor, shape: Shape) -> torch.Tensor:
    return sub_block_mass_naive(q, k, shape.block_m, shape.block_n)


DEFINITIONS = {
    "sampled_max": by_definition,
    "sampled_sum": sum_by_definition,
    "mean": mean_by_definition,
    "sub_block_mass": sub_block_mass_by_definition,
}
# Its kernels round means to the precision of the tokens.
ROUNDED = {"sub_block_mass": 3e-4}


class TestSample:
    @hypothesis.given(st.integers(1, 5000))
    def test_one_token_of_each_run_of_four(self, length: int) -> None:
        sample = sample_positions(length, CPU)
        assert sample.dtype == torch.int64
        assert (sample // 4).tolist() == list(range(math.ceil(length / 4)))
        assert sample.min() >= 0
        assert sample.max() < length

    def test_every_place_in_a_run_is_taken_about_as_often(self) -> None:
        counts = sample_positions(40_000, CPU).remainder(4).bincount()
        assert (counts - 2500).abs().max() < 250

    @pytest.mark.parametrize("length", [1, 77, 4096])
    def test_is_the_same_every_time(self, length: int) -> None:
        first = sample_positions(length, CPU).clone()
        sample_positions.cache_clear()
        torch.manual_seed(length)
        assert torch.equal(sample_positions(length, CPU), first)

    def test_leaves_the_global_generator_alone(self) -> None:
        sample_positions.cache_clear()
        before = torch.get_rng_state()
        sample_positions(1001, CPU)
        assert torch.equal(torch.get_rng_state(), before)


class TestSampled:
    @each_sampled
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
    def test_equals_its_definition(self, shape: Shape, dtype: torch.dtype, backend: str, name: str) -> None:
        if backend == "triton" and (dtype == torch.float64 or (dtype == torch.float32 and DEVICE.type == "cuda")):
            pytest.skip("the kernel takes half precision only, on a CPU float32 too")
        q, k, _ = random_qkv(shape, dtype)
        out = ESTIMATORS[name](q, k, shape.block_m, shape.block_n, backend, None)
        assert out.dtype == torch.promote_types(dtype, torch.float32)
        assert out.sum(-1).sub(1).abs().max() < 1e-5
        assert relative_error(out, by_definition(q, k, shape, name)) < (1e-12 if dtype == torch.float64 else 1e-5)

    @each_sampled
    def test_blocks_and_softmax_by_hand(self, name: str) -> None:
        shape = Shape(1, 1, 130, 70, 64, 64, 32)
        q, k, _ = random_qkv(shape, device=CPU)
        q_sample, k_sample = sample_positions(130, CPU).tolist(), sample_positions(70, CPU).tolist()
        scores = torch.zeros(3, 3, dtype=torch.float64)
        for i in q_sample:
            exps = {j: math.exp(q[0, 0, i].double() @ k[0, 0, j].double() / 8) for j in k_sample}
            for j in k_sample:
                weight = exps[j] / sum(exps.values())
                before = float(scores[i // 64, j // 32])
                scores[i // 64, j // 32] = before + weight if name == "sampled_sum" else max(before, weight)
        expected = scores / scores.sum(-1, keepdim=True)
        assert relative_error(by_definition(q, k, shape, name)[0, 0], expected) < 1e-12

    @pytest.mark.parametrize("block_n", [32, 128])
    def test_the_sum_is_nearer_to_the_mass(self, block_n: int) -> None:
        """On keys of which few matter, and on keys that matter alike."""
        shape = Shape(1, 4, 1024, 2048, 64, 128, block_n)
        q, k, _ = random_qkv(shape, device=CPU)
        sharp = torch.tensor([0.3, 1.0, 2.0, 3.0]).view(1, 4, 1, 1)
        q = q * sharp
        everything = torch.arange(1024), torch.arange(2048)
        mass = sampled_sum_naive(q, k, *everything, 128, block_n)
        by_sum, by_max = (relative_error(estimate(q, k, 128, block_n), mass) for estimate in (sampled_sum, sampled_max))

        assert by_sum < 0.95 * by_max

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        ("sharpness", "block_n", "largest"), [(0.3, 32, 0.06), (0.3, 128, 0.03), (1.0, 32, 0.45), (1.0, 128, 0.25)]
    )
    def test_error_of_the_sum_to_the_mass(self, sharpness: float, block_n: int, largest: float, backend: str) -> None:
        """A quarter of the tokens tells the mass of many keys that matter alike; where few do, less of it."""
        shape = Shape(1, 4, 1024, 2048, 64, 128, block_n)
        q, k, _ = random_qkv(shape, torch.float16)
        q = q * sharpness
        everything = (torch.arange(n, device=DEVICE) for n in (1024, 2048))
        mass = sampled_sum_naive(q, k, *everything, 128, block_n)
        assert relative_error(sampled_sum(q, k, 128, block_n, backend), mass) < largest

    @pytest.mark.parametrize("chunk", [1, 5000, 1 << 40])
    def test_chunks_do_not_change_it(self, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
        shape = Shape(2, 2, 1000, 333, 64, 64, 32)
        q, k, _ = random_qkv(shape, device=CPU)
        monkeypatch.setattr(importance_torch, "_CHUNK_NUMBERS", chunk)
        assert relative_error(sampled_max(q, k, 64, 32), by_definition(q, k, shape)) < 1e-5

    @pytest.mark.parametrize("backend", BACKENDS)
    @any_view
    def test_any_strides(self, view: Callable[[torch.Tensor], torch.Tensor], backend: str) -> None:
        shape = Shape(2, 3, 70, 133, 64, 64, 32)
        q, k, _ = random_qkv(shape, torch.float16)
        for strided_q, strided_k in ((view(q), k), (q, view(k))):
            expected = by_definition(strided_q, strided_k, shape)
            assert relative_error(sampled_max(strided_q, strided_k, 64, 32, backend), expected) < 1e-5

    @needs_triton
    @pytest.mark.parametrize("launch", [Launch(32, 32, 4, 1), Launch(128, 64, 4, 2), Launch(128, 128, 8, 2)])
    @pytest.mark.parametrize("block_n", [32, 128])
    @each_sampled
    def test_tiles_do_not_matter(self, name: str, block_n: int, launch: Launch) -> None:
        from psa_core.ops.importance.triton import sampled_triton

        shape = Shape(2, 1, 300, 500, 64, 128, block_n)
        q, k, _ = random_qkv(shape, torch.float16)
        samples = sample_of_heads(q, None), sample_of_heads(k, None)
        scores = sampled_triton(q, k, *samples, 128, block_n, list(ESTIMATORS).index(name), launch=launch)
        assert relative_error(scores / scores.sum(-1, keepdim=True), by_definition(q, k, shape, name)) < 1e-5


class TestInOrders:
    """Blocks of each head's order of the tokens, from tensors in the order they have."""

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize(
        ("estimator", "backend"),
        [
            ("sampled_max", "torch"),
            ("sampled_sum", "torch"),
            *(pytest.param(name, "triton", marks=needs_triton) for name in ESTIMATORS),
        ],
    )
    @pytest.mark.parametrize("n_orders", [1, 3])
    def test_equals_reordering_first(self, n_orders: int, shape: Shape, estimator: str, backend: str) -> None:
        if n_orders == 1:
            shape = shape._replace(k_tokens=shape.q_tokens)
        q, k, _ = random_qkv(shape, torch.float16)
        orders = random_orders(n_orders, shape.batch, shape.heads, shape.k_tokens)
        if n_orders > 1:
            # As many or not, queries may have others.
            queries = random_orders(n_orders, shape.batch, shape.heads, shape.q_tokens)
            orders = orders._replace(index=orders.index.int(), of_queries=queries)
        out = ESTIMATORS[estimator](q, k, shape.block_m, shape.block_n, backend, orders)
        definition = DEFINITIONS[estimator]
        largest = ROUNDED.get(estimator, 1e-5)
        assert relative_error(out, definition(*orders.take_call(q, k), shape)) < largest

    @needs_triton
    @any_view
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_any_strides(self, view: Callable[[torch.Tensor], torch.Tensor], estimator: str) -> None:
        shape = Shape(2, 3, 133, 133, 64, 64, 32)
        q, k, _ = random_qkv(shape, torch.float16)
        orders = random_orders(3, 2, 3, 133)
        definition = DEFINITIONS[estimator]
        for strided_q, strided_k in ((view(q), k), (q, view(k))):
            out = ESTIMATORS[estimator](strided_q, strided_k, 64, 32, "triton", orders)
            expected = definition(orders.take(strided_q), orders.take(strided_k), shape)
            assert relative_error(out, expected) < ROUNDED.get(estimator, 1e-5)

    @needs_triton
    @pytest.mark.parametrize("d", [64, 128])
    @pytest.mark.parametrize("estimator", ["sampled_max", "sampled_sum", "sub_block_mass"])
    def test_each_head_as_alone(self, estimator: str, d: int) -> None:
        q, k, _ = random_qkv(Shape(2, 3, 333, 333, d), torch.float16)
        q = q.transpose(1, 2).contiguous().transpose(1, 2)
        orders = random_orders(3, 2, 3, 333)
        estimate = ESTIMATORS[estimator]
        out = estimate(q, k, 128, 32, "triton", orders)
        for head, order in heads_alone(orders):
            assert torch.equal(out[head], estimate(q[head], k[head], 128, 32, "triton", order))

    def test_an_index_tells_itself_from_another_as_long(self) -> None:
        q, k, _ = random_qkv(Shape(1, 1, 300, 300, 64, 64, 32), torch.float16)
        for _ in range(3):
            orders = random_orders(1, 1, 1, 300)
            expected = sampled_max(orders.take(q), orders.take(k), 64, 32)
            assert relative_error(sampled_max(q, k, 64, 32, orders=orders), expected) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_mean_equals_its_definition(shape: Shape, dtype: torch.dtype, backend: str) -> None:
    if backend == "triton" and dtype != torch.float16:
        pytest.skip("kernels take half precision only, their interpreter no bfloat16")
    q, k, _ = random_qkv(shape, dtype)
    out = mean(q, k, shape.block_m, shape.block_n, backend)
    assert out.dtype == torch.promote_types(dtype, torch.float32)
    assert relative_error(out, mean_by_definition(q, k, shape)) < (1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sub_block_mass_equals_its_definition(shape: Shape, backend: str) -> None:
    q, k, _ = random_qkv(shape, torch.float16)
    out = sub_block_mass(q, k, shape.block_m, shape.block_n, backend)
    assert out.dtype == torch.float32
    assert out.sum(-1).sub(1).abs().max() < 1e-5
    largest = ROUNDED["sub_block_mass"] if backend == "triton" else 1e-5
    assert relative_error(out, sub_block_mass_by_definition(q, k, shape)) < largest


def test_the_mass_of_runs_that_are_alike_is_the_true_mass() -> None:
    """Where the tokens of a run are alike, their mean tells all of them."""
    q, k = (torch.randn(1, 2, n, 64).repeat_interleave(8, 2) for n in (32, 64))
    mass = sampled_sum_naive(q, k, torch.arange(256), torch.arange(512), 128, 32)
    assert relative_error(sub_block_mass(q, k, 128, 32), mass) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("block_m", [64, 128])
def test_rows_of_some_query_blocks_are_those_of_all(estimator: str, block_m: int, backend: str) -> None:
    q, k, _ = random_qkv(Shape(2, 2, 700, 700, 64), torch.float16)
    orders = random_orders(2, 2, 2, 700) if backend == "triton" else None
    blocks = (0, 2, 4)
    every, some = (ESTIMATORS[estimator](q, k, block_m, 32, backend, orders, rows) for rows in (None, blocks))
    assert relative_error(some, every[:, :, list(blocks)]) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_mean_of_equal_keys_follows_token_counts(backend: str) -> None:
    q = torch.randn(1, 1, 64, 64, device=DEVICE).half()
    k = torch.randn(1, 1, 1, 64, device=DEVICE).half().expand(1, 1, 80, 64)
    expected = torch.tensor([0.4, 0.4, 0.2], device=DEVICE)
    assert torch.allclose(mean(q, k, 64, 32, backend), expected, atol=1e-5)


@needs_triton
@pytest.mark.parametrize("tokens", [1, 31, 128, 333])
@pytest.mark.parametrize("block", [32, 64, 128])
def test_block_means_equal_their_definition(block: int, tokens: int) -> None:
    from psa_core.ops.pyramid.triton import block_means_triton

    x = torch.randn(2, 3, tokens, 128, device=DEVICE).half().transpose(1, 2).contiguous().transpose(1, 2)
    several = random_orders(3, 2, 3, tokens)
    for orders, reordered in ((None, x), (several, several.take(x))):
        means = block_means_triton(x, block, orders)
        assert means.dtype == torch.float32
        assert means.is_contiguous()
        assert relative_error(means, pooled_rows(reordered.double(), block)[0]) < 1e-6
    for head, order in heads_alone(several):
        assert torch.equal(means[head], block_means_triton(x[head], block, order))


@pytest.mark.parametrize(
    ("estimator", "dtype", "backend"),
    [
        *itertools.product(ESTIMATORS, [torch.float16, torch.bfloat16, torch.float32], ["torch"]),
        *(pytest.param(name, torch.float16, "triton", marks=needs_triton) for name in ESTIMATORS),
    ],
)
def test_huge_logits_stay_finite(estimator: str, dtype: torch.dtype, backend: str) -> None:
    q, k, _ = random_qkv(Shape(1, 2, 130, 100), dtype)
    # Logits of the order of 1e4, from numbers that float16 holds.
    out = ESTIMATORS[estimator](q * 2000, k * 5, 64, 32, backend)
    assert out.isfinite().all()
    assert (out >= 0).all()
    assert out.sum(-1).sub(1).abs().max() < 1e-5
