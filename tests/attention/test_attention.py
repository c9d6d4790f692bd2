"""Attention over a level map: against definitions written out here and against the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from psa_core import ConfigError, attention_from_levels
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.attention.torch import pyramid_attention_torch
from psa_core.ops.backends import triton_installed
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.importance.naive import mean_naive
from psa_core.ops.launch import Launch
from psa_core.ops.pyramid.rows import build_pyramid
from psa_core.ops.reorder import Orders

from ..support.tensors import (
    DEVICE,
    Shape,
    heads_alone,
    random_levels,
    random_orders,
    random_qkv,
    relative_error,
    softmax_attention,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory")

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]

SHAPES = [
    Shape(1, 1, 1, 1, 64, 128, 32),
    Shape(1, 2, 40, 24, 64, 64, 32),
    Shape(2, 1, 130, 200, 128, 128, 64),
    Shape(1, 2, 257, 300, 64, 128, 128),
    Shape(2, 2, 150, 97, 64, 64, 32),
]

SELF_SHAPES = [
    Shape(1, 1, 1, 1, 64, 128, 128),
    Shape(2, 2, 257, 257, 64, 128, 128),
    Shape(1, 2, 193, 193, 128, 64, 32),
    Shape(1, 3, 320, 320, 64, 64, 64),
]


def uniform_levels(shape: Shape, level: int) -> torch.Tensor:
    return torch.full((1, 1, *shape.blocks), level, dtype=torch.uint8, device=DEVICE)


def bound(dtype: torch.dtype) -> float:
    """Relative error that rounding explains: of the pooled rows, the weights and the output."""
    return {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]


class TestOracle:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_full_resolution_is_softmax_attention(self, shape: Shape) -> None:
        q, k, v = random_qkv(shape)
        out = pyramid_attention_naive(q, k, v, uniform_levels(shape, 1), shape.block_m, shape.block_n)
        assert relative_error(out, softmax_attention(q, k, v)) < 1e-12

    @pytest.mark.parametrize("level", [2, 4, 8, 16, 32])
    def test_level_is_attention_over_group_means(self, level: int) -> None:
        shape = Shape(1, 2, 50, 75, 64, 64, 32)
        q, k, v = (x.double() for x in random_qkv(shape))
        groups = [slice(start, min(start + level, 75)) for start in range(0, 75, level)]
        logits = [q @ k[:, :, g].mean(2)[..., None] / 8 + math.log(g.stop - g.start) for g in groups]
        values = [v[:, :, g].mean(2) for g in groups]
        weights = torch.cat(logits, -1).softmax(-1)
        expected = sum(weights[..., i, None] * value[:, :, None] for i, value in enumerate(values))
        out = pyramid_attention_naive(q, k, v, uniform_levels(shape, level), 64, 32)
        assert relative_error(out, expected) < 1e-12

    @pytest.mark.parametrize("tokens", [96, 77])
    def test_pooling_equal_tokens_changes_nothing(self, tokens: int) -> None:
        shape = Shape(1, 1, 100, tokens, 64, 64, 32)
        q, k, v = random_qkv(shape)
        k, v = (x[:, :, ::8].repeat_interleave(8, 2)[:, :, :tokens] for x in (k, v))
        levels = (1 << torch.randint(4, (1, 1, *shape.blocks), device=DEVICE)).to(torch.uint8)
        out = pyramid_attention_naive(q, k, v, levels, 64, 32)
        assert relative_error(out, softmax_attention(q, k, v)) < 1e-12

    def test_skipped_blocks_are_left_out(self) -> None:
        shape = Shape(1, 1, 128, 160, 64, 64, 32)
        q, k, v = random_qkv(shape)
        levels = uniform_levels(shape, 1).clone()
        levels[..., 0, 1] = levels[..., 0, 4] = levels[..., 1, 0] = 0
        first, second = [*range(32), *range(64, 128)], [*range(32, 160)]
        expected = torch.cat(
            [
                softmax_attention(q[:, :, :64], k[:, :, first], v[:, :, first]),
                softmax_attention(q[:, :, 64:], k[:, :, second], v[:, :, second]),
            ],
            2,
        )
        assert relative_error(pyramid_attention_naive(q, k, v, levels, 64, 32), expected) < 1e-12

    def test_rows_that_are_given_take_the_place_of_exact_ones(self) -> None:
        shape = Shape(2, 2, 150, 97, 64, 64, 32)
        q, k, v = (x.double() for x in random_qkv(shape))
        levels, pyramid = random_levels(shape), build_pyramid(k, v, 16)
        exact = pyramid_attention_naive(q, k, v, levels, 64, 32)
        assert relative_error(pyramid_attention_naive(q, k, v, levels, 64, 32, pyramid), exact) < 1e-12
        pyramid = pyramid._replace(k=pyramid.k + torch.randn_like(pyramid.k), v=pyramid.v + torch.randn_like(pyramid.v))
        levels[levels > 16] = 16
        expected = pyramid_attention_torch(q, k, v, levels, pyramid, 64, 32)
        assert relative_error(pyramid_attention_naive(q, k, v, levels, 64, 32, pyramid), expected) < 1e-12


class TestAttentionFromLevels:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_random_levels(self, shape: Shape, dtype: torch.dtype, backend: str) -> None:
        if backend == "triton" and dtype == torch.float32 and DEVICE.type == "cuda":
            pytest.skip("on a GPU the kernel takes half precision only")
        q, k, v = random_qkv(shape, dtype)
        levels = random_levels(shape)
        out = attention_from_levels(q, k, v, levels, block_m=shape.block_m, block_n=shape.block_n, backend=backend)
        assert out.dtype == dtype
        assert out.stride(3) == 1
        expected = pyramid_attention_naive(q, k, v, levels, shape.block_m, shape.block_n)
        assert relative_error(out, expected) < bound(dtype)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("level", [1, 8, 32])
    def test_one_level_alone(self, level: int, backend: str) -> None:
        shape = Shape(1, 1, 70, 107, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        levels = uniform_levels(shape, level)
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend)
        assert relative_error(out, pyramid_attention_naive(q, k, v, levels, 64, 32)) < bound(torch.float16)

    @needs_triton
    @pytest.mark.parametrize("launch", [Launch(64, 32, 4, 2), Launch(32, 128, 4, 1), Launch(16, 16, 4, 1)])
    def test_tiles_do_not_matter(self, launch: Launch) -> None:
        from psa_core.ops.attention.triton import pyramid_attention_triton

        shape = Shape(1, 2, 200, 150, 64, 128, 64)
        q, k, v = random_qkv(shape, torch.float16)
        levels = random_levels(shape)
        block_list = build_block_list(levels, 64, 64, 150, "triton")
        out = pyramid_attention_triton(q, k, v, block_list, build_pyramid(k, v, 64), 128, 64, launch=launch)
        assert relative_error(out, pyramid_attention_naive(q, k, v, levels, 128, 64)) < bound(torch.float16)

    @needs_triton
    @pytest.mark.parametrize("shape", SELF_SHAPES)
    @pytest.mark.parametrize(("n_orders", "max_level"), [(3, 1), (3, 8), (3, 0), (1, 0)])
    def test_in_orders_equals_reordering_first(self, n_orders: int, shape: Shape, max_level: int) -> None:
        from psa_core.ops.attention.triton import pyramid_attention_triton

        max_level = max_level or shape.block_n
        q, k, v = random_qkv(shape, torch.float16)
        k, v = k.mT.contiguous().mT, v.transpose(1, 2).contiguous().transpose(1, 2)
        levels = random_levels(shape)
        levels[levels > max_level] = 0
        orders = random_orders(n_orders, shape.batch, shape.heads, shape.q_tokens)
        block_list = build_block_list(levels, max_level, shape.block_n, shape.k_tokens, "triton")
        pyramid = build_pyramid(k, v, max_level, "triton", orders)
        out = pyramid_attention_triton(q, k, v, block_list, pyramid, shape.block_m, shape.block_n, orders)
        reordered = (orders.take(x) for x in (q, k, v))
        expected = orders.restore(pyramid_attention_naive(*reordered, levels, shape.block_m, shape.block_n))
        assert out.isfinite().all()
        # All is skipped where the whole map had coarser levels.
        assert (out.double() - expected).norm() <= bound(torch.float16) * expected.norm()

    @needs_triton
    @pytest.mark.parametrize("shape", [Shape(2, 3, 333, 333, 64, 128, 32), Shape(2, 2, 200, 200, 128, 64, 64)])
    def test_each_head_in_its_order_as_alone(self, shape: Shape) -> None:
        from psa_core.ops.attention.triton import pyramid_attention_triton

        q, k, v = random_qkv(shape, torch.float16)
        q, v = q.transpose(1, 2).contiguous().transpose(1, 2), v.mT.contiguous().mT
        levels, orders = random_levels(shape), random_orders(3, shape.batch, shape.heads, shape.q_tokens)

        def attend(head: tuple[slice, ...], orders: Orders) -> torch.Tensor:
            block_list = build_block_list(levels[head], shape.block_n, shape.block_n, shape.k_tokens, "triton")
            pyramid = build_pyramid(k[head], v[head], shape.block_n, "triton", orders)
            arguments = block_list, pyramid, shape.block_m, shape.block_n, orders
            return pyramid_attention_triton(q[head], k[head], v[head], *arguments)

        out = attend((), orders)
        for head, order in heads_alone(orders):
            assert torch.equal(out[head], attend(head, order))

    @needs_triton
    @pytest.mark.parametrize("reorder", [False, True])
    def test_query_block_that_keeps_nothing_gives_zeros(self, reorder: bool) -> None:
        from psa_core.ops.attention.triton import pyramid_attention_triton

        shape = Shape(1, 2, 150, 150, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        levels = random_levels(shape)
        levels[:, :, 1:] = 0
        orders = random_orders(2, 1, 2, 150) if reorder else None
        block_list = build_block_list(levels, 32, 32, 150, "triton")
        pyramid = build_pyramid(k, v, 32, "triton", orders)
        out = pyramid_attention_triton(q, k, v, block_list, pyramid, 64, 32, orders)
        if orders is not None:
            q, k, v, out = (orders.take(x) for x in (q, k, v, out))
        assert (out[:, :, 64:] == 0).all()
        assert relative_error(out, pyramid_attention_naive(q, k, v, levels, 64, 32)) < bound(torch.float16)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("level", [2, 8, 32])
    def test_ragged_last_row_carries_its_own_tokens_only(self, level: int, backend: str) -> None:
        shape = Shape(1, 1, 64, 32 + level + 1, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        # The last row, of one token, is what every query looks for.
        k[:, :, -1] = 4 * q.mean(2)
        levels = uniform_levels(shape, level)
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend)
        assert relative_error(out, pyramid_attention_naive(q, k, v, levels, 64, 32)) < bound(torch.float16)

    @pytest.mark.parametrize(
        ("dtype", "d"), [(torch.bfloat16, 64), (torch.float64, 64), (torch.float32, 80), (torch.float16, 3)]
    )
    def test_torch_takes_what_no_kernel_takes(self, dtype: torch.dtype, d: int) -> None:
        shape = Shape(1, 2, 90, 130, d, 64, 64)
        q, k, v = random_qkv(shape, dtype)
        levels = random_levels(shape)
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=64, backend="torch")
        expected = pyramid_attention_naive(q, k, v, levels, 64, 64)
        assert relative_error(out, expected) < (1e-12 if dtype == torch.float64 else bound(dtype))

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
            lambda x: torch.cat([x, torch.full_like(x, float("nan"))], 1)[:, : x.shape[1]],
            lambda x: x.mT.contiguous().mT,
            lambda x: torch.stack([x, torch.full_like(x, float("nan"))], -1)[..., 0],
            lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
            lambda x: x[:1].expand(x.shape),
            lambda x: x[:, :, :1].expand(x.shape),
        ],
        ids=[
            "heads after tokens",
            "sliced heads",
            "tokens innermost",
            "every second number",
            "heads innermost",
            "expanded batch",
            "expanded tokens",
        ],
    )
    def test_any_strides(self, view: Callable[[torch.Tensor], torch.Tensor], backend: str) -> None:
        shape = Shape(2, 2, 70, 45, 64, 64, 32)
        q, k, v = (view(x) for x in random_qkv(shape, torch.float16))
        levels = random_levels(shape)
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend)
        assert relative_error(out, pyramid_attention_naive(q, k, v, levels, 64, 32)) < bound(torch.float16)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_each_tensor_has_strides_of_its_own(self, backend: str) -> None:
        shape = Shape(2, 2, 45, 45, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        k, v = k.transpose(1, 2).contiguous().transpose(1, 2), v.mT.contiguous().mT
        for tensors in ((q, k, v), (k, v, q), (v, q, k)):
            levels = random_levels(shape)
            out = attention_from_levels(*tensors, levels, block_m=64, block_n=32, backend=backend)
            assert relative_error(out, pyramid_attention_naive(*tensors, levels, 64, 32)) < bound(torch.float16)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("broadcast", [(1, 1), (2, 1), (1, 3)])
    def test_broadcast_level_map(self, broadcast: tuple[int, int], backend: str) -> None:
        shape = Shape(2, 3, 70, 45, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        levels = random_levels(shape)[: broadcast[0], : broadcast[1]]
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend)
        whole = levels.expand(2, 3, -1, -1)
        assert relative_error(out, pyramid_attention_naive(q, k, v, whole, 64, 32)) < bound(torch.float16)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("broadcast", [False, True])
    def test_empty_row_attends_to_its_most_important_block(self, broadcast: bool, backend: str) -> None:
        shape = Shape(2, 2, 150, 100, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        levels = random_levels(shape)
        levels = levels[:1, :1] if broadcast else levels
        levels[:, :, 1] = 0
        before = levels.clone()
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend)
        repaired = levels.expand(2, 2, -1, -1).clone()
        best = mean_naive(q, k, 64, 32)[:, :, 1].argmax(-1)
        repaired[:, :, 1] = torch.nn.functional.one_hot(best, shape.blocks[1])
        assert relative_error(out, pyramid_attention_naive(q, k, v, repaired, 64, 32)) < bound(torch.float16)
        assert torch.equal(levels, before)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_values_that_are_no_level_are_skipped(self, backend: str) -> None:
        shape = Shape(1, 2, 64, 320, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        levels = torch.tensor([3, 2, 64, 4, 200, 8, 5, 1, 0, 255], dtype=torch.uint8, device=DEVICE).expand(1, 2, 1, 10)
        valid = torch.tensor([0, 2, 0, 4, 0, 8, 0, 1, 0, 0], dtype=torch.uint8, device=DEVICE).expand(1, 2, 1, 10)
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend)
        assert relative_error(out, pyramid_attention_naive(q, k, v, valid, 64, 32)) < bound(torch.float16)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_huge_logits_stay_finite(self, backend: str) -> None:
        shape = Shape(1, 1, 70, 100, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        q, levels = q * 1000, random_levels(shape)
        out = attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend)
        # Weights are all or nothing here, so the pooled keys' rounding may pick another row; none may leave the range.
        assert out.isfinite().all()
        assert out.abs().max() <= 1.001 * v.abs().max()

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_repeats_bit_for_bit(self, backend: str) -> None:
        shape = Shape(1, 2, 70, 100, 64, 64, 32)
        q, k, v = random_qkv(shape, torch.float16)
        levels = random_levels(shape)
        first, second = (
            attention_from_levels(q, k, v, levels, block_m=64, block_n=32, backend=backend) for _ in range(2)
        )
        assert torch.equal(first, second)

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"levels": torch.ones(1, 1, 2, 4, dtype=torch.int64)}, "levels"),
            ({"levels": torch.ones(1, 1, 4, 2, dtype=torch.uint8)}, "levels"),
            ({"levels": torch.ones(3, 1, 2, 4, dtype=torch.uint8)}, "levels"),
            ({"levels": torch.ones(2, 4, dtype=torch.uint8)}, "levels"),
            ({"levels": torch.ones(1, 1, 2, 4, dtype=torch.uint8, device="meta")}, "levels"),
            ({"levels": [[1]]}, "levels"),
            ({"q": None}, "q"),
            ({"block_m": 32}, "block_m"),
            ({"block_n": 256}, "block_n"),
            ({"backend": "cuda"}, "backend"),
            ({"q": torch.randn(2, 128, 64)}, "q"),
            ({"k": torch.ones(2, 2, 128, 64, dtype=torch.int64)}, "k"),
            ({"v": torch.randn(2, 2, 0, 64)}, "v"),
            ({"k": torch.randn(2, 2, 127, 64)}, "q, k, v"),
            ({"q": torch.randn(2, 3, 128, 64)}, "q, k, v"),
            ({"q": torch.randn(2, 2, 128, 32)}, "q, k, v"),
            ({"v": torch.randn(2, 2, 128, 64).half()}, "q, k, v"),
        ],
    )
    def test_refusals_name_the_key(self, changes: dict, key: str) -> None:
        arguments = dict(zip("qkv", random_qkv(Shape(2, 2), device=torch.device("cpu")), strict=True))
        arguments |= {"levels": torch.ones(1, 1, 2, 4, dtype=torch.uint8), "block_m": 64, "block_n": 32}
        with pytest.raises(ConfigError) as caught:
            attention_from_levels(**(arguments | changes))
        assert caught.value.key == key
        assert str(caught.value).startswith(f"{key} = ")
