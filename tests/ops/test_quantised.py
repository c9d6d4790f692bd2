"""Attention over a packed pyramid, against the oracle on the numbers that were packed, and against exact attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.packed.naive import quantised_queries
from psa_core.ops.pyramid.rows import build_pyramid
from psa_core.ops.reorder import Orders

from ..support.tensors import DEVICE, Shape, random_levels, random_orders, random_qkv, relative_error

pytestmark = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
ON_GPU = DEVICE.type == "cuda"
# Triton's interpreter does not round to FP8 as GPUs do.
PRECISIONS = ["int8", *(["int8+fp8"] if ON_GPU else [])]
DTYPE = torch.bfloat16 if ON_GPU else torch.float16
# To the oracle: the rounding of weights, which it does not do, of pooled rows, and of the output.
BOUND = {"int8": 6e-3, "int8+fp8": 0.03}
# Added to the error of exact attention over the same map, on random tensors, where nothing evens out.
ADDED = {"int8": 0.025, "int8+fp8": 0.035}
SHAPES = [
    Shape(2, 2, 257, 300, 64, 128, 128),
    Shape(1, 3, 150, 215, 128, 64, 32),
    Shape(2, 1, 70, 129, 64, 64, 64),
    Shape(1, 1, 1, 1, 128, 128, 128),
]


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, levels: torch.Tensor, shape: Shape, precision: str,
    orders: Orders | None = None, exact_heads: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """The output, what the oracle makes of the packed numbers, and exact attention, all in order."""
    from psa_core.ops.attention.quantised import ExactHeads, pack_for, quantised_attention_triton

    max_level, sizes = shape.block_n, (shape.block_m, shape.block_n)
    block_list = build_block_list(levels, max_level, shape.block_n, shape.k_tokens, "triton")
    pyramid = build_pyramid(k, v, max_level, "triton", orders)
    packed = pack_for(k, v, precision, *sizes, max_level, orders)
    q_orders = None if orders is None or shape.q_tokens == shape.k_tokens else random_orders(2, *q.shape[:3])
    exact = None if exact_heads is None else ExactHeads(exact_heads, pyramid.k)
    out = quantised_attention_triton(q, k, v, block_list, packed, *sizes, orders, q_orders, exact)
    if orders is not None:
        q_orders = q_orders or orders
        q, k, v, out = q_orders.take(q), orders.take(k), orders.take(v), q_orders.take(out)
    meant = packed.dequantised(shape.k_tokens)
    oracle = pyramid_attention_naive(quantised_queries(q), *meant, levels, *sizes, packed.dequantised_rows())
    return out, oracle, pyramid_attention_naive(q, k, v, levels, *sizes, pyramid)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("in_orders", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_the_oracle(shape: Shape, in_orders: bool, precision: str) -> None:
    q, k, v = random_qkv(shape, DTYPE, DEVICE)
    k = (k + 2 * torch.randn(shape.batch, shape.heads, 1, shape.d, device=DEVICE)).to(DTYPE)
    orders = random_orders(2, shape.batch, shape.heads, shape.k_tokens) if in_orders else None
    out, oracle, exact = attend(q, k, v, random_levels(shape, DEVICE), shape, precision, orders)
    assert out.dtype == DTYPE
    assert relative_error(out, oracle) < BOUND[precision]
    assert relative_error(out, exact) < ADDED[precision]


def test_sums_in_float16_as_rtx_30_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from psa_core.ops.attention import quantised

    monkeypatch.setattr(quantised, "capability_of", lambda _: (8, 6))
    shape = SHAPES[0]
    q, k, v = random_qkv(shape, DTYPE, DEVICE)
    # Sums of values as they are would pass what float16 holds.
    out, oracle, _ = attend(q, k, 2000 * v, random_levels(shape, DEVICE), shape, "int8")
    assert relative_error(out, oracle) < 2 * BOUND["int8"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_exact_heads_are_exact_and_others_are_not_touched(precision: str) -> None:
    shape = SHAPES[0]
    q, k, v = random_qkv(shape, DTYPE, DEVICE)
    levels, orders = random_levels(shape, DEVICE), random_orders(2, 2, 2, shape.k_tokens)
    orders = Orders(orders.index, orders.of_head)
    exact_heads = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8, device=DEVICE)
    torch.manual_seed(0)
    out, _, exact = attend(q, k, v, levels, shape, precision, orders, exact_heads)
    torch.manual_seed(0)
    quantised = attend(q, k, v, levels, shape, precision, orders)[0]
    for b, h in ((0, 0), (1, 1)):
        assert relative_error(out[b, h], exact[b, h]) < (1e-2 if ON_GPU else 1e-3)
    for b, h in ((0, 1), (1, 0)):
        assert torch.equal(out[b, h], quantised[b, h])


EXTREMES: dict[str, Any] = {
    "a channel of keys 50 times as large": (lambda q, k, v: (q / 8, scale_channel(k, 50), v), 0.1),
    "a channel of values 100 times as large": (lambda q, k, v: (q, k, scale_channel(v, 100)), 0.05),
    "the same key everywhere": (lambda q, k, v: (q, k[:, :, :1].expand(k.shape), v), 0.05),
    "zeros": (lambda q, k, v: (q * 0, k * 0, v), 0.05),
    "logits of some hundreds": (lambda q, k, v: (q * 30, k, v), 0.2),
}


def scale_channel(x: torch.Tensor, by: float) -> torch.Tensor:
    x = x.clone()
    x[..., 5] *= by
    return x


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("change", "bound"), EXTREMES.values(), ids=EXTREMES)
def test_extremes(change: Any, bound: float, precision: str) -> None:
    shape = Shape(1, 1, 130, 200, 64, 64, 64)
    q, k, v = change(*random_qkv(shape, DTYPE, DEVICE))
    out, oracle, exact = attend(q, k, v, random_levels(shape, DEVICE), shape, precision)
    assert relative_error(out, oracle) < 2 * BOUND[precision]
    assert relative_error(out, exact) < bound


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("level", [1, 4])
def test_nan_in_gives_nan_out(level: int, where: int, precision: str) -> None:
    shape = Shape(1, 2, 128, 130, 64, 64, 64)
    tensors = random_qkv(shape, DTYPE, DEVICE)
    tensors[where][0, 0, 3, 2] = torch.nan
    levels = torch.full((1, 2, *shape.blocks), level, dtype=torch.uint8, device=DEVICE)
    out = attend(*tensors, levels, shape, precision)[0]
    assert out[0, 0, 3].isnan().any()
    assert not out[0, 1].isnan().any()


def test_a_row_that_keeps_nothing_is_zero() -> None:
    shape = Shape(1, 1, 64, 64, 64, 64, 64)
    q, k, v = random_qkv(shape, DTYPE, DEVICE)
    levels = torch.zeros(1, 1, 1, 1, dtype=torch.uint8, device=DEVICE)
    assert attend(q, k, v, levels, shape, "int8")[0].abs().max() == 0
