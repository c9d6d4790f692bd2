"""The pyramid: pooled rows and gathered tokens, against the oracle."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from psa_core.ops.backends import triton_installed
from psa_core.ops.pyramid.naive import pooled_rows
from psa_core.ops.pyramid.rows import build_pyramid

from ..support.tensors import DEVICE, Shape, heads_alone, random_orders, random_qkv, relative_error

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]


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
def test_rows_are_group_means(tokens: int, max_level: int, dtype: torch.dtype, backend: str) -> None:
    _, k, v = random_qkv(Shape(2, 2, 1, tokens), dtype)
    k = k.transpose(1, 2).contiguous().transpose(1, 2)
    pyramid = build_pyramid(k, v, max_level, backend)
    levels = [1 << i for i in range(1, max_level.bit_length())]
    for pooled, x in ((pyramid.k, k), (pyramid.v, v)):
        expected = torch.cat([pooled_rows(x.double(), level)[0] for level in levels], 2)
        assert pooled.dtype == dtype
        assert relative_error(pooled, expected) < {torch.float64: 1e-15, torch.float32: 1e-6}.get(dtype, 1e-3)
        if dtype == torch.float16:
            # Rounded once, from a sum in float32, which is itself off by so much where numbers of both signs even out.
            assert ((pooled - expected).abs() <= 2**-11 * 1.001 * expected.abs() + 2**-22).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_level_one_alone_has_no_rows(backend: str) -> None:
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
def test_any_strides_make_contiguous_rows(view: Callable[[], torch.Tensor], max_level: int, backend: str) -> None:
    x = view().to(DEVICE, torch.float16)
    rows = build_pyramid(x, x, max_level, backend).k
    assert rows.is_contiguous()
    assert torch.equal(rows, build_pyramid(x.contiguous(), x, max_level, backend).k)


@needs_triton
@pytest.mark.parametrize(("n_orders", "tokens"), [(3, 1), (3, 61), (3, 300), (1, 61)])
@pytest.mark.parametrize(("max_level", "d"), [(2, 64), (8, 128), (128, 64)])
def test_in_orders_equals_reordering_first(n_orders: int, tokens: int, max_level: int, d: int) -> None:
    _, k, v = random_qkv(Shape(2, 3, 1, tokens, d), torch.float16)
    k, v = k.mT.contiguous().mT, v.transpose(1, 2).contiguous().transpose(1, 2)
    orders = random_orders(n_orders, 2, 3, tokens)
    pyramid = build_pyramid(k, v, max_level, "triton", orders)
    for pooled, x in ((pyramid.k, k), (pyramid.v, v)):
        rows = [pooled_rows(orders.take(x).double(), 1 << i)[0] for i in range(1, max_level.bit_length())]
        assert pooled.is_contiguous()
        assert relative_error(pooled, torch.cat(rows, 2)) < 1e-3
    for head, order in heads_alone(orders):
        alone = build_pyramid(k[head], v[head], max_level, "triton", order)
        assert torch.equal(pyramid.k[head], alone.k)
        assert torch.equal(pyramid.v[head], alone.v)


@needs_triton
@pytest.mark.parametrize("max_level", [2, 32])
@pytest.mark.usefixtures("poisoned_memory")
def test_heads_that_nobody_reads_are_left_out(max_level: int) -> None:
    _, k, v = random_qkv(Shape(2, 3, 1, 300, 64), torch.float16)
    read = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.uint8, device=DEVICE)
    some, every = (build_pyramid(k, v, max_level, "triton", read=heads) for heads in (read, None))
    for rows, all_rows in ((some.k, every.k), (some.v, every.v)):
        assert torch.equal(rows[read.bool()], all_rows[read.bool()])
        assert rows[~read.bool()].isnan().all()


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    "view",
    [lambda x: x, lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), lambda x: x.mT.contiguous().mT],
    ids=["contiguous", "heads after tokens", "tokens innermost"],
)
@pytest.mark.parametrize(("taken", "d"), [(1, 64), (200, 64), (128, 128)])
def test_tokens_are_gathered_bit_for_bit(
    view: Callable[[torch.Tensor], torch.Tensor], taken: int, d: int, dtype: torch.dtype
) -> None:
    from psa_core.ops.pyramid.triton import gather_triton

    x = view(torch.randn(2, 3, 270, d, device=DEVICE, dtype=dtype))
    orders = random_orders(3, 2, 3, 270)
    some = orders._replace(index=orders.index[:, :taken])
    gathered = gather_triton(x, some)
    assert gathered.is_contiguous()
    assert torch.equal(gathered, some.take(x))
