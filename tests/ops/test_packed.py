"""The packed pyramid, against the oracle."""

from __future__ import annotations

import pytest
import torch

from psa_core.ops.backends import triton_installed
from psa_core.ops.packed.naive import pack_naive
from psa_core.ops.packed.rows import Packed
from psa_core.ops.pyramid.rows import build_pyramid

from ..support.tensors import DEVICE, Shape, random_orders, random_qkv, relative_error

pytestmark = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
FP8 = torch.float8_e4m3fn
# Triton's interpreter does not round to FP8 as GPUs do.
VALUES = [torch.float16, *([FP8] if DEVICE.type == "cuda" else [])]


def pack(k: torch.Tensor, v: torch.Tensor, *how: object, **more: object) -> Packed:
    from psa_core.ops.packed.triton import pack_triton

    return pack_triton(k, v, *how, **more)


@pytest.mark.parametrize("dtype", VALUES, ids=str)
@pytest.mark.parametrize(
    ("tokens", "d", "block_n", "tile", "max_level"),
    [(1, 64, 128, 64, 128), (131, 128, 32, 32, 2), (600, 64, 64, 64, 64), (299, 64, 128, 128, 1)],
)
def test_as_the_oracle(tokens: int, d: int, block_n: int, tile: int, max_level: int, dtype: torch.dtype) -> None:
    _, k, v = random_qkv(Shape(2, 3, 1, tokens, d), torch.float16)
    k = (k + 3 * torch.randn(2, 3, 1, d, device=DEVICE)).half().mT.contiguous().mT
    orders = random_orders(2, 2, 3, tokens)
    packed = pack(k, v, block_n, tile, dtype, max_level, orders)
    expected = pack_naive(orders.take(k), orders.take(v), packed.center, block_n, tile, dtype, max_level)
    for steps, wanted in ((packed.k, expected.k), (packed.pooled.k, expected.pooled.k)):
        # A number in the middle of two may go either way.
        assert steps.shape == wanted.shape
        assert steps.numel() == 0 or (steps.int() - wanted.int()).abs().max() <= 1
        assert (steps != wanted).sum() <= 2e-3 * steps.numel()
    assert (packed.v != expected.v).float().mean() < 1e-2
    for found, wanted in zip((*packed[1:5], *packed.pooled[1:3]), (*expected[1:5], *expected.pooled[1:3]), strict=True):
        assert found.shape == wanted.shape
        # A single token is its own center.
        assert torch.equal(found, wanted) or relative_error(found.float(), wanted.float()) < 5e-3
    assert packed.nbytes == sum(x.nbytes for x in (*packed[:5], *packed.pooled[:3]))


@pytest.mark.parametrize("dtype", VALUES, ids=str)
def test_numbers_are_those_that_were_packed(dtype: torch.dtype) -> None:
    _, k, v = random_qkv(Shape(1, 2, 1, 300), torch.float16)
    packed, pyramid = pack(k, v, 128, 64, dtype, 8), build_pyramid(k.float(), v.float(), 8)
    # Half a step of 1/127 of the largest of 64 x 64 numbers, or of 1/8 of a number, evenly spread.
    for x, y, bound in zip(packed.dequantised(300), (k, v), (0.012, 0.03), strict=True):
        assert relative_error(x, y) < bound
    # Of the largest of 64; and float16's rounding.
    for x, y, bound in zip(packed.dequantised_rows()[:2], pyramid[:2], (0.008, 5e-4), strict=True):
        assert relative_error(x, y) < bound


def test_the_center_is_the_mean_of_few_tokens() -> None:
    _, k, v = random_qkv(Shape(2, 2, 1, 900), torch.float16)
    assert relative_error(pack(k, v, 128, 64, torch.float16).center, k.float().mean(2)) < 1e-5


def test_many_tokens_give_a_center_near_their_mean() -> None:
    _, k, v = random_qkv(Shape(1, 1, 1, 3000), torch.float16)
    assert (pack(k + 5, v, 128, 64, torch.float16).center - 5).abs().max() < 0.25


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constants(value: float) -> None:
    x = torch.full((1, 1, 130, 64), value, dtype=torch.float16, device=DEVICE)
    packed = pack(x, x, 64, 64, torch.float16, 64)
    for found in (*packed.dequantised(130), *packed.dequantised_rows()[:2]):
        assert torch.equal(found, x.float()[:, :, :1].expand_as(found))


def test_nan_is_told() -> None:
    """Of keys in their tile and in their pooled rows, of values in their channel."""
    _, k, v = random_qkv(Shape(1, 1, 1, 300), torch.float16)
    k[..., 70, 3] = v[..., 70, 3] = torch.nan
    packed = pack(k, v, 64, 64, torch.float16, 2)
    found_k, found_v = packed.dequantised(300)
    rows = packed.dequantised_rows()
    assert found_k[:, :, 64:128].isnan().all()
    assert rows.k[:, :, 35].isnan().all()
    for values in (found_v, rows.v):
        assert values[..., 3].isnan().all()
        assert not values[..., 4:].isnan().any()


def test_rows_that_nobody_reads_are_left_out() -> None:
    _, k, v = random_qkv(Shape(2, 3, 1, 300), torch.float16)
    read = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=torch.uint8, device=DEVICE)
    some, every = (pack(k, v, 64, 64, torch.float16, 32, read=heads) for heads in (read, None))
    for rows, all_rows in zip(some.dequantised_rows()[:2], every.dequantised_rows()[:2], strict=True):
        assert torch.equal(rows[read.bool()], all_rows[read.bool()])
        assert rows[~read.bool()].isnan().all()
    assert torch.equal(some.k, every.k)
    assert torch.equal(some.v, every.v)
