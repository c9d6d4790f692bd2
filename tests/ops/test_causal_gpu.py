"""Causal and grouped attention on a GPU, at lengths of prompts: kernels against definitions, and no look ahead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from psa_core import PSAConfig, attention_from_levels, pyramid_sparse_attention
from psa_core.ops.causal import Causal, causal_levels
from psa_core.ops.importance.estimators import ESTIMATORS
from psa_core.ops.levels.rules import levels_from_importance

from ..support.tensors import Shape, random_levels, relative_error
from .test_gpu import BOUND, CUDA, RATIOS, kernel, reference

__all__ = ["kernel"]  # a fixture

pytestmark = pytest.mark.gpu

QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
# With heads of keys: groups of seven as in Qwen2.5-VL-7B, others, and none.
CASES = [
    (Shape(1, 14, 4099, 4099, 128, 128, 128), 2, torch.bfloat16),
    (Shape(2, 7, 3001, 5001, 128, 128, 64), 1, torch.bfloat16),
    (Shape(1, 4, 2048, 4096, 64, 128, 32), 2, torch.float16),
    (Shape(2, 3, 5001, 5001, 64, 128, 128), 3, torch.bfloat16),
    (Shape(1, 8, 1500, 1733, 128, 64, 32), 2, torch.float16),
    (Shape(1, 4, 129, 4000, 64, 64, 128), 1, torch.bfloat16),
    (Shape(1, 7, 1, 300, 128, 128, 64), 1, torch.bfloat16),
]


def grouped(shape: Shape, kv_heads: int, dtype: torch.dtype) -> QKV:
    """Queries, keys and values as language models hand them over: views of ``[B, L, H, D]``."""
    sizes = ((shape.q_tokens, shape.heads), (shape.k_tokens, kv_heads), (shape.k_tokens, kv_heads))
    q, k, v = (torch.randn(shape.batch, n, heads, shape.d, device=CUDA).transpose(1, 2) for n, heads in sizes)
    return (2 * q).to(dtype), k.to(dtype), (v + 0.5).to(dtype)


def mask_of(shape: Shape) -> Causal:
    return Causal(shape.q_tokens, shape.k_tokens, shape.block_m, shape.block_n)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("shape", "kv_heads", "dtype"), CASES)
@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_its_definition(shape: Shape, kv_heads: int, dtype: torch.dtype, causal: bool) -> None:
    q, k, v = grouped(shape, kv_heads, dtype)
    levels = random_levels(shape, CUDA)
    sizes: dict[str, Any] = {"block_m": shape.block_m, "block_n": shape.block_n}
    out = attention_from_levels(q, k, v, levels, **sizes, causal=causal, backend="triton")
    if causal:
        levels = causal_levels(levels, mask_of(shape))
    assert relative_error(out, reference(q, k, v, levels, shape, causal)) < BOUND[dtype]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("shape", "kv_heads", "dtype"), CASES)
def test_level_1_everywhere_is_dense_attention(shape: Shape, kv_heads: int, dtype: torch.dtype) -> None:
    q, k, v = grouped(shape, kv_heads, dtype)
    config = PSAConfig(block_m=shape.block_m, block_n=shape.block_n, mask_ratios={1: (0, 1)})
    out = pyramid_sparse_attention(q, k, v, config, causal=True, backend="triton")
    positions = torch.arange(shape.q_tokens, device=CUDA) + shape.k_tokens - shape.q_tokens
    mask = torch.arange(shape.k_tokens, device=CUDA) <= positions[:, None]
    expected = scaled_dot_product_attention(*(x.float() for x in (q, k, v)), mask, enable_gqa=True)
    assert relative_error(out, expected) < BOUND[dtype]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("shape", "kv_heads", "dtype"), CASES)
def test_importance_and_levels_equal_torch(estimator: str, shape: Shape, kv_heads: int, dtype: torch.dtype) -> None:
    q, k, _ = grouped(shape, kv_heads, dtype)
    causal = mask_of(shape)
    sizes = shape.block_m, shape.block_n
    found, expected = (ESTIMATORS[estimator](q, k, *sizes, backend, causal=causal) for backend in ("triton", "torch"))
    # Means of runs are rounded to the tensors' dtype, where sums in another order may fall on the other side.
    assert relative_error(found, expected) < (1e-3 if estimator == "sub_block_mass" else 1e-4)
    for mode in ("topk", "thresholdbound"):
        config = PSAConfig(block_m=shape.block_m, block_n=shape.block_n, mask_ratios=RATIOS, mask_mode=mode)
        ours, theirs = (
            levels_from_importance(expected, config, backend=backend, causal=causal) for backend in ("triton", "torch")
        )
        # Masses that add up in another order may fall on the other side of a bound.
        assert (ours != theirs).float().mean() <= (0 if mode == "topk" else 1e-3)


SETTINGS: dict[str, dict[str, Any]] = {
    "mass": {},
    "quotas": {"mask_mode": "topk", "use_sim_mask": True},
    "means": {"importance": "mean"},
    "calibrated": {"mask_mode": "calibrated", "target_density": 0.3},
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", ["mass", "quotas", "means"])
def test_the_future_changes_no_bit_of_the_past(name: str) -> None:
    shape = Shape(1, 7, 4000, 5003, 128, 128, 64)
    q, k, v = grouped(shape, 1, torch.bfloat16)
    config = PSAConfig(block_m=128, block_n=64, mask_ratios=RATIOS, **SETTINGS[name])
    before = pyramid_sparse_attention(q, k, v, config, causal=True, backend="triton").clone()
    first = 2048
    for x, start in ((q, first), (k, first + 1003), (v, first + 1003)):
        x[:, :, start:] = 3 * torch.randn_like(x[:, :, start:])
    after = pyramid_sparse_attention(q, k, v, config, causal=True, backend="triton")
    assert torch.equal(before[:, :, :first], after[:, :, :first])
    assert not torch.equal(before[:, :, first:], after[:, :, first:])


@pytest.mark.parametrize("name", SETTINGS)
def test_repeats_and_never_waits_for_the_gpu(name: str) -> None:
    shape = Shape(1, 14, 4000, 5003, 128, 128, 64)
    q, k, v = grouped(shape, 2, torch.bfloat16)
    config = PSAConfig(block_m=128, block_n=64, **SETTINGS[name])
    first = pyramid_sparse_attention(q, k, v, config, causal=True)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = pyramid_sparse_attention(q, k, v, config, causal=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)
