"""The whole op and the module: against its steps composed by hand from the oracles."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from psa_core import BackendError, ConfigError, PSAAttention, PSAConfig, RadialMask, pyramid_sparse_attention
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed
from psa_core.ops.importance.naive import mean_naive, sampled_max_naive
from psa_core.ops.importance.sampling import sample_positions
from psa_core.ops.levels.naive import select_levels_naive
from psa_core.ops.reorder.gilbert import gilbert_order
from psa_core.ops.similarity.naive import similarity_cap_naive

from ..support.tensors import DEVICE, Shape, random_levels, random_qkv, relative_error, softmax_attention

pytestmark = pytest.mark.usefixtures("poisoned_memory")

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]

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
        levels = torch.maximum(levels, static).masked_fill((levels == 0) | (static == 0), 0)
    levels[:, :, : -(-TEXT // config.block_m)] = 1
    levels[..., : -(-TEXT // config.block_n)] = 1
    out = pyramid_attention_naive(q, k, v, levels, config.block_m, config.block_n)
    return levels, out[:, :, np.argsort(order)]


class TestWholeOp:
    @pytest.fixture
    def qkv(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = math.prod(GRID) + TEXT
        # In float64 no importance is equal to another, or to a bound, up to rounding.
        q, k, v = random_qkv(Shape(2, 2, tokens, tokens), torch.float64, torch.device("cpu"))
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
    @pytest.mark.skipif(DEVICE.type == "cuda", reason="the interpreter's; tests/ops/test_gpu.py has the GPU's")
    def test_triton_equals_the_steps_by_hand(self) -> None:
        config = PSAConfig(mask_ratios=RATIOS, block_n=32, block_m=64)
        # In float32 some have importances that are equal to others, or to bounds, up to rounding; these have not.
        torch.manual_seed(0)
        q, k, v = random_qkv(Shape(1, 1, math.prod(GRID) + TEXT, math.prod(GRID) + TEXT), device=torch.device("cpu"))
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
        q, k, v = random_qkv(shape, torch.float64, torch.device("cpu"))
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
        best = among.argmax(-1, keepdim=True)
        # A block that selection and the static map both keep has the static map's level; a repaired one is full.
        both_keep = best == importance.argmax(-1, keepdim=True)
        level = torch.where(both_keep, static.expand_as(among).gather(-1, best).clamp(min=1), 1).to(torch.uint8)
        assert torch.equal(info.levels, torch.zeros_like(info.levels).scatter(-1, best, level))
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
        q, k, _ = qkv = random_qkv(Shape(1, 2, 300, 300), torch.float64, torch.device("cpu"))
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
        qkv = tuple(x[:1, :1].float() for x in qkv)
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
            ({"static_levels": torch.ones(1, 1, 1, 1, dtype=torch.uint8, device="meta")}, "static_levels", "on cpu"),
            ({"config": "auto_fast"}, "config", "load_preset"),
            ({"config": PSAConfig(mask_mode="calibrated"), "calibration": "file"}, "calibration", "Calibration.load"),
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


class TestDense:
    """``type="dense"``."""

    @pytest.mark.parametrize("backend", ["auto", "torch", "triton"])
    @pytest.mark.parametrize(
        "settings",
        [{}, {"mask_mode": "timestep"}, {"radial": RadialMask()}, {"block_m": 64, "block_n": 32, "use_sim_mask": True}],
        ids=["defaults", "timestep", "radial", "blocks"],
    )
    def test_is_dense_attention(self, settings: dict[str, Any], backend: str) -> None:
        config = PSAConfig(type="dense", mask_ratios={1: (0, 0.1), 0: (0.1, 1)}, **settings)
        qkv = random_qkv(Shape(2, 3, 300, 431))
        out, info = pyramid_sparse_attention(*qkv, config, backend=backend, return_info=True)
        assert torch.equal(out, pyramid_sparse_attention(*qkv, config, backend=backend))
        assert relative_error(out, softmax_attention(*qkv)) < 2e-6
        assert info.density.item() == 1
        assert info.backend == "torch"
        blocks = Shape(2, 3, 300, 431, 64, config.block_m, config.block_n).blocks
        assert torch.equal(info.levels, torch.ones(2, 3, *blocks, dtype=torch.uint8, device=DEVICE))

    def test_masks_do_not_matter(self) -> None:
        qkv = random_qkv(Shape(1, 1, 256, 256))
        nothing = torch.zeros(1, 1, 2, 2, dtype=torch.uint8, device=DEVICE)
        out = pyramid_sparse_attention(*qkv, PSAConfig(type="dense"), static_levels=nothing)
        assert relative_error(out, softmax_attention(*qkv)) < 2e-6

    def test_wrong_arguments_are_refused_all_the_same(self) -> None:
        q, k, v = random_qkv(Shape(1, 1, 64, 64))
        with pytest.raises(ConfigError, match="backend = 'cuda'"):
            pyramid_sparse_attention(q, k, v, PSAConfig(type="dense"), backend="cuda")
        with pytest.raises(ConfigError, match="must share one dtype"):
            pyramid_sparse_attention(q, k, v.half(), PSAConfig(type="dense"))


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
        out = PSAAttention(PSAConfig(type="dense", text_length=226))(*qkv)
        assert relative_error(out, softmax_attention(*qkv)) < 2e-6

    def test_defaults(self) -> None:
        qkv = random_qkv(Shape(1, 2, 300, 300))
        assert torch.equal(PSAAttention()(*qkv), pyramid_sparse_attention(*qkv))
