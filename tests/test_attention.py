"""Attention over a level map, and the whole op: against definitions written out here and against the oracles."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from psa_core import (
    BackendError,
    ConfigError,
    PSAAttention,
    PSAConfig,
    attention_from_levels,
    pyramid_sparse_attention,
)
from psa_core.backends import triton_installed
from psa_core.importance import sample_positions
from psa_core.ops.attention.block_list import build_block_list
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.importance.naive import mean_naive, sampled_max_naive
from psa_core.ops.launch import Launch
from psa_core.ops.levels.naive import select_levels_naive, similarity_cap_naive
from psa_core.ops.pyramid.naive import pooled_rows
from psa_core.pyramid import build_pyramid
from psa_core.reorder.gilbert import gilbert_order

from .support import DEVICE, Shape, random_levels, random_qkv, relative_error

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


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.double() for x in (q, k, v))
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


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


class TestPyramid:
    @pytest.mark.parametrize("tokens", [1, 7, 61, 128, 300])
    @pytest.mark.parametrize(
        ("dtype", "backend"),
        [
            (torch.float16, "torch"),
            (torch.float32, "torch"),
            (torch.float64, "torch"),
            pytest.param(torch.float16, "triton", marks=needs_triton),
        ],
    )
    @pytest.mark.parametrize("max_level", [8, 128])
    def test_rows_are_group_means(self, tokens: int, max_level: int, dtype: torch.dtype, backend: str) -> None:
        _, k, v = random_qkv(Shape(2, 2, 1, tokens), dtype)
        k = k.transpose(1, 2).contiguous().transpose(1, 2)
        pyramid = build_pyramid(k, v, max_level, backend)
        levels = [1 << i for i in range(1, max_level.bit_length())]
        for pooled, x in ((pyramid.k, k), (pyramid.v, v)):
            expected = torch.cat([pooled_rows(x.double(), level)[0] for level in levels], 2)
            assert pooled.dtype == dtype
            assert relative_error(pooled, expected) < {torch.float64: 1e-15, torch.float32: 1e-6}.get(dtype, 1e-3)
            if dtype == torch.float16:
                # Rounded once, from a sum in float32.
                assert ((pooled - expected).abs() <= 2**-11 * 1.001 * expected.abs() + 2**-25).all()

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_level_one_alone_has_no_rows(self, backend: str) -> None:
        _, k, v = random_qkv(Shape(2, 3, 1, 50), torch.float16)
        assert build_pyramid(k, v, 1, backend).k.shape == (2, 3, 0, 64)

    @pytest.mark.parametrize(
        "view",
        [
            lambda: torch.randn(2, 65, 64, 3).permute(0, 3, 1, 2),
            lambda: torch.randn(2, 3, 64, 65).mT,
            lambda: torch.randn(1, 1, 65, 64).expand(2, 3, -1, -1),
        ],
        ids=["heads innermost", "tokens innermost", "expanded"],
    )
    @pytest.mark.parametrize("max_level", [2, 32])
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_any_strides_make_contiguous_rows(
        self, view: Callable[[], torch.Tensor], max_level: int, backend: str
    ) -> None:
        x = view().to(DEVICE, torch.float16)
        rows = build_pyramid(x, x, max_level, backend).k
        assert rows.is_contiguous()
        assert torch.equal(rows, build_pyramid(x.contiguous(), x, max_level, backend).k)


class TestBlockList:
    @hypothesis.given(st.data())
    def test_level_map_comes_back(self, data: st.DataObject) -> None:
        max_level = data.draw(st.sampled_from([1, 2, 8, 128]))
        choices = [0, *(1 << i for i in range(max_level.bit_length()))]
        k_blocks = data.draw(st.integers(1, 9))
        row = st.lists(st.sampled_from(choices), min_size=k_blocks, max_size=k_blocks)
        rows = data.draw(st.lists(row, min_size=1, max_size=4))
        levels = torch.tensor(rows, dtype=torch.uint8)[None, None]
        blocks, counts = build_block_list(levels, max_level)
        assert blocks.dtype == counts.dtype == torch.int32
        assert blocks.shape == levels.shape
        assert counts.shape == (*levels.shape[:3], max_level.bit_length())
        read = torch.zeros_like(levels)
        for i in range(len(rows)):
            start = 0
            for exponent, count in enumerate(counts[0, 0, i].tolist()):
                listed = blocks[0, 0, i, start : start + count]
                assert listed.tolist() == sorted(listed.tolist())
                read[0, 0, i, listed.long()] = 1 << exponent
                start += count
        assert torch.equal(read, levels)

    def test_transposed_level_map(self) -> None:
        levels = random_levels(Shape(1, 3, 300, 320, 64, 64, 32)).mT
        for view, dense in zip(build_block_list(levels, 32), build_block_list(levels.contiguous(), 32), strict=True):
            assert torch.equal(view, dense)


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
        assert out.is_contiguous()
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
        out = pyramid_attention_triton(q, k, v, levels, build_pyramid(k, v, 64), 128, 64, launch)
        assert relative_error(out, pyramid_attention_naive(q, k, v, levels, 128, 64)) < bound(torch.float16)

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


RATIOS = {1: (0.0, 0.2), 2: (0.2, 0.3), 4: (0.3, 0.5), 8: (0.5, 0.8), 0: (0.8, 1.0)}
GRID, TEXT = (3, 9, 10), 37


def composed_by_hand(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig, static: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Level map and output of the whole op from the oracles; Gilbert order, a grid of GRID and TEXT text tokens."""
    order = np.concatenate([np.arange(TEXT), TEXT + gilbert_order(GRID)])
    q, k, v = (x[:, :, order] for x in (q, k, v))
    sample = sample_positions(q.shape[2], q.device)
    importance = sampled_max_naive(q, k, sample, sample, config.block_m, config.block_n)
    levels = select_levels_naive(importance, config.mask_ratios, config.mask_mode, config.min_full_ratio)
    if config.use_sim_mask:
        thresholds = {int(key[1:]): threshold for key, threshold in config.sim_thresholds.items()}
        levels = torch.minimum(levels, similarity_cap_naive(k, config.block_n, thresholds))
    if static is not None:
        levels = torch.minimum(levels, static)
    levels[:, :, : -(-TEXT // config.block_m)] = 1
    levels[..., : -(-TEXT // config.block_n)] = 1
    out = pyramid_attention_naive(q, k, v, levels, config.block_m, config.block_n)
    return levels, out[:, :, np.argsort(order)]


class TestWholeOp:
    @pytest.fixture
    def qkv(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = math.prod(GRID) + TEXT
        q, k, v = random_qkv(Shape(2, 2, tokens, tokens), device=torch.device("cpu"))
        # A part that all tokens share makes some blocks alike enough to pool.
        return q, k + torch.randn(2, 2, 1, 64) * torch.linspace(0, 3, tokens)[:, None], v

    @pytest.mark.parametrize(
        "config",
        [
            PSAConfig(mask_ratios=RATIOS, block_n=32, block_m=64),
            PSAConfig(mask_ratios=RATIOS, block_n=64, mask_mode="topk", use_sim_mask=True),
            PSAConfig(mask_ratios=RATIOS, block_n=32, block_m=64, use_sim_mask=True),
        ],
        ids=["thresholdbound", "topk", "cosine cap"],
    )
    def test_equals_the_steps_by_hand(self, qkv: tuple[torch.Tensor, ...], config: PSAConfig) -> None:
        out, info = pyramid_sparse_attention(*qkv, config, grid=GRID, text_length=TEXT, return_info=True)
        levels, expected = composed_by_hand(*qkv, config)
        assert torch.equal(info.levels, levels)
        assert relative_error(out, expected) < 2e-6

    @needs_triton
    @pytest.mark.skipif(DEVICE.type == "cuda", reason="the interpreter's; tests/test_gpu.py has the GPU's")
    def test_triton_equals_the_steps_by_hand(self, qkv: tuple[torch.Tensor, ...]) -> None:
        config = PSAConfig(mask_ratios=RATIOS, block_n=32, block_m=64)
        q, k, v = (x[:1, :1] for x in qkv)
        out, info = pyramid_sparse_attention(
            q, k, v, config, grid=GRID, text_length=TEXT, backend="triton", return_info=True
        )
        levels, expected = composed_by_hand(q, k, v, config)
        assert info.backend == "triton"
        assert torch.equal(info.levels, levels)
        assert relative_error(out, expected) < 2e-6

    @pytest.mark.parametrize("broadcast", [False, True])
    def test_static_levels(self, qkv: tuple[torch.Tensor, ...], broadcast: bool) -> None:
        config = PSAConfig(mask_ratios=RATIOS, block_n=32, block_m=64)
        static = random_levels(Shape(2, 2, 307, 307, 64, 64, 32), torch.device("cpu"))
        static = static[:1, :1] if broadcast else static
        static[:, :, 2] = 0
        before = static.clone()
        out, info = pyramid_sparse_attention(
            *qkv, config, grid=GRID, text_length=TEXT, static_levels=static, return_info=True
        )
        levels, expected = composed_by_hand(*qkv, config, static)
        assert torch.equal(info.levels, levels)
        assert relative_error(out, expected) < 2e-6
        assert torch.equal(static, before)

    def test_rows_that_static_levels_empty_keep_the_best_of_what_these_keep(self) -> None:
        shape = Shape(2, 2, 200, 200, 64, 64, 32)
        q, k, v = random_qkv(shape, device=torch.device("cpu"))
        sample = sample_positions(200, q.device)
        importance = sampled_max_naive(q, k, sample, sample, 64, 32)
        least = importance.mean((0, 1)).argsort(-1)[:, :2]
        # Selection keeps one block a row. Row 0 may keep none, row 1 one that few heads select, row 2 two such.
        static = torch.zeros(1, 1, *shape.blocks, dtype=torch.uint8)
        static[..., 1, least[1, 0]] = 4
        static[..., 2, least[2]] = 8
        static[..., 3, :] = 1
        config = PSAConfig(block_m=64, block_n=32, mask_ratios={1: (0, 0.1), 0: (0.1, 1)}, mask_mode="topk")
        out, info = pyramid_sparse_attention(q, k, v, config, static_levels=static, return_info=True)
        among = importance.masked_fill((static == 0) & (static != 0).any(-1, keepdim=True), -1)
        assert torch.equal(info.levels, torch.nn.functional.one_hot(among.argmax(-1), 7).to(torch.uint8))
        assert relative_error(out, pyramid_attention_naive(q, k, v, info.levels, 64, 32)) < 2e-6

    @pytest.mark.parametrize("importance", ["sampled_max", "mean"])
    def test_no_row_is_empty(self, importance: str) -> None:
        shape = Shape(1, 2, 300, 300, 64, 64, 32)
        config = PSAConfig(
            block_m=64, block_n=32, mask_ratios={0: (0, 1)}, min_full_ratio=0, importance=importance, mask_mode="topk"
        )
        _, info = pyramid_sparse_attention(*random_qkv(shape), config, return_info=True)
        assert (info.levels.sum(-1) == 1).all()

    def test_estimators_differ_and_the_setting_picks_one(self) -> None:
        q, k, _ = qkv = random_qkv(Shape(1, 2, 300, 300), device=torch.device("cpu"))
        config = PSAConfig(block_m=64, block_n=32, mask_ratios=RATIOS, importance="mean")
        _, info = pyramid_sparse_attention(*qkv, config, return_info=True)
        importance = mean_naive(q, k, 64, 32)
        assert torch.equal(info.levels, select_levels_naive(importance, RATIOS, "thresholdbound", 0.06))
        _, other = pyramid_sparse_attention(*qkv, config.replace(importance="sampled_max"), return_info=True)
        assert not torch.equal(info.levels, other.levels)

    def test_everything_kept_is_dense_attention(self, qkv: tuple[torch.Tensor, ...]) -> None:
        out = pyramid_sparse_attention(*qkv, PSAConfig(mask_ratios={1: (0, 1)}), grid=GRID, text_length=TEXT)
        assert relative_error(out, softmax_attention(*qkv)) < 2e-6

    def test_info(self, qkv: tuple[torch.Tensor, ...]) -> None:
        config = PSAConfig(block_n=32, mask_ratios=RATIOS)
        out, info = pyramid_sparse_attention(*qkv, config, return_info=True)
        assert torch.equal(out, pyramid_sparse_attention(*qkv, config))
        assert info.levels.dtype == torch.uint8
        assert info.levels.shape == (2, 2, 3, 10)
        assert info.backend == "torch"
        flat = info.levels.flatten().tolist()
        assert info.density.item() == pytest.approx(sum(1 / level for level in flat if level) / len(flat))

    def test_without_rearranging_the_grid_changes_nothing(self, qkv: tuple[torch.Tensor, ...]) -> None:
        config = PSAConfig(use_rearrange=False, block_n=32, mask_ratios=RATIOS)
        with_grid = pyramid_sparse_attention(*qkv, config, grid=GRID, text_length=TEXT)
        assert torch.equal(with_grid, pyramid_sparse_attention(*qkv, config, text_length=TEXT))

    def test_tile_order(self, qkv: tuple[torch.Tensor, ...]) -> None:
        config = PSAConfig(rearrange_method="Tile", tile_size=(1, 4, 4), mask_ratios={1: (0, 1)})
        out = pyramid_sparse_attention(*qkv, config, grid=GRID, text_length=TEXT)
        assert relative_error(out, softmax_attention(*qkv)) < 2e-6

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_repeats_and_leaves_inputs_and_random_states_alone(
        self, qkv: tuple[torch.Tensor, ...], backend: str
    ) -> None:
        if backend == "triton" and DEVICE.type == "cuda":
            pytest.skip("the interpreter's")
        sample_positions.cache_clear()
        qkv = tuple(x[:1, :1] for x in qkv)
        before = [x.clone() for x in qkv]
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        config = PSAConfig(block_m=64, block_n=32, mask_ratios=RATIOS, use_sim_mask=True)
        first, second = (
            pyramid_sparse_attention(*qkv, config, grid=GRID, text_length=TEXT, backend=backend) for _ in range(2)
        )
        assert torch.equal(first, second)
        assert all(torch.equal(x, y) for x, y in zip(qkv, before, strict=True))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]
        assert all(np.array_equal(x, y) for x, y in zip(np.random.get_state(), states[2], strict=True))

    def test_after_inference_mode_gradients_can_be_on(self) -> None:
        q, k, v = random_qkv(Shape(1, 1, 211, 211), device=torch.device("cpu"))
        grid = (1, 1, 211)
        with torch.inference_mode():
            expected = pyramid_sparse_attention(q, k, v, grid=grid)
        out = pyramid_sparse_attention(q.requires_grad_(), k, v, grid=grid)
        assert torch.equal(out.detach(), expected)

    def test_default_device_does_not_matter(self) -> None:
        qkv = random_qkv(Shape(1, 1, 213, 213), device=torch.device("cpu"))
        with torch.device("meta"):
            out = pyramid_sparse_attention(*qkv, grid=(1, 3, 71))
        assert torch.equal(out, pyramid_sparse_attention(*qkv, grid=(1, 3, 71)))

    @pytest.mark.parametrize(
        ("changes", "key", "said"),
        [
            ({"grid": (2, 8, 9)}, "grid", "128 tokens"),
            ({"grid": (8, 16)}, "grid", "whole numbers"),
            ({"grid": (-1, -16, 8)}, "grid", "1 or more"),
            ({"grid": (2.0, 8, 8)}, "grid", "whole numbers"),
            ({"grid": 128}, "grid", "whole numbers"),
            ({"grid": (2, 8, 8), "text_length": 1}, "grid", "1 text tokens"),
            ({"text_length": -1}, "text_length", "between 0 and 128"),
            ({"text_length": 129}, "text_length", "between 0 and 128"),
            ({"text_length": 1.5}, "text_length", "whole number"),
            ({"static_levels": torch.ones(1, 1, 2, 1, dtype=torch.uint8)}, "static_levels", "[1, 2, 1, 1]"),
            ({"static_levels": torch.ones(1, 1, 1, 1)}, "static_levels", "uint8"),
            ({"backend": "sdpa"}, "backend", "auto, triton, torch"),
        ],
    )
    def test_refusals_name_the_key(self, changes: dict, key: str, said: str) -> None:
        qkv = random_qkv(Shape(1, 2), device=torch.device("cpu"))
        with pytest.raises(ConfigError) as caught:
            pyramid_sparse_attention(*qkv, **changes)
        assert caught.value.key == key
        assert said in str(caught.value)

    def test_cross_attention_has_no_grid(self) -> None:
        q, k, v = random_qkv(Shape(1, 1, 64, 128), device=torch.device("cpu"))
        with pytest.raises(ConfigError, match="64 and 128"):
            pyramid_sparse_attention(q, k, v, grid=(1, 8, 8))

    def test_text_may_not_outgrow_the_shorter_sequence(self) -> None:
        q, k, v = random_qkv(Shape(1, 1, 100, 40), device=torch.device("cpu"))
        with pytest.raises(ConfigError, match="between 0 and 40"):
            pyramid_sparse_attention(q, k, v, text_length=50)

    def test_triton_refuses_what_it_cannot_take(self) -> None:
        qkv = random_qkv(Shape(1, 1, 64, 64, 80), device=torch.device("cpu"))
        with pytest.raises(BackendError, match="triton"):
            pyramid_sparse_attention(*qkv, backend="triton")


class TestModule:
    def test_is_the_function(self) -> None:
        config = PSAConfig(block_m=64, block_n=32, mask_ratios=RATIOS, text_length=10)
        qkv = random_qkv(Shape(1, 2, 190, 190))
        module = PSAAttention(config, backend="torch")
        expected = pyramid_sparse_attention(*qkv, config, grid=(3, 6, 10), text_length=10, backend="torch")
        assert torch.equal(module(*qkv, grid=(3, 6, 10)), expected)
        assert not torch.equal(module(*qkv, grid=(1, 19, 10), text_length=0), expected)
        assert list(module.parameters()) == []
        assert "block_n=32" in repr(module)

    def test_queries_and_keys_may_differ_in_length(self) -> None:
        qkv = random_qkv(Shape(2, 2, 100, 333))
        out = PSAAttention(PSAConfig(mask_ratios={1: (0, 1)}))(*qkv)
        assert relative_error(out, softmax_attention(*qkv)) < 2e-6

    def test_dense_type_is_dense_attention(self) -> None:
        qkv = random_qkv(Shape(1, 2, 100, 200, 48))
        out = PSAAttention(PSAConfig(type="dense"))(*qkv)
        assert relative_error(out, softmax_attention(*qkv)) < 2e-6

    def test_defaults(self) -> None:
        qkv = random_qkv(Shape(1, 2, 300, 300))
        assert torch.equal(PSAAttention()(*qkv), pyramid_sparse_attention(*qkv))
