"""The packed pyramid, against the oracle."""

from __future__ import annotations

import pytest
import torch

from psa_core.ops.backends import triton_installed
from psa_core.ops.packed.naive import pack_naive
from psa_core.ops.packed.rows import Packed

from ..support.tensors import DEVICE, Shape, random_orders, random_qkv, relative_error

pytestmark = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
FP8 = torch.float8_e4m3fn
# Triton's interpreter does not round to FP8 as GPUs do.
VALUES = [torch.float16, *([FP8] if DEVICE.type == "cuda" else [])]


def pack(k: torch.Tensor, v: torch.Tensor, *how: object) -> Packed:
    from psa_core.ops.packed.triton import pack_triton

    return pack_triton(k, v, *how)


@pytest.mark.parametrize("dtype", VALUES, ids=str)
@pytest.mark.parametrize(("tokens", "d", "block_n", "tile"), [(1, 64, 128, 64), (131, 128, 32, 32), (600, 64, 64, 64)])
def test_as_the_oracle(tokens: int, d: int, block_n: int, tile: int, dtype: torch.dtype) -> None:
    _, k, v = random_qkv(Shape(2, 3, 1, tokens, d), torch.float16)
    k = (k + 3 * torch.randn(2, 3, 1, d, device=DEVICE)).half().mT.contiguous().mT
    orders = random_orders(2, 2, 3, tokens)
    packed = pack(k, v, block_n, tile, dtype, orders)
    expected = pack_naive(orders.take(k), orders.take(v), packed.center, block_n, tile, dtype)
    # A number in the middle of two may go either way.
    assert (packed.k.int() - expected.k.int()).abs().max() <= 1
    assert (packed.k != expected.k).float().mean() < 1e-3
    assert (packed.v != expected.v).float().mean() < 1e-2
    for found, wanted in zip(packed[1:5], expected[1:5], strict=True):
        assert found.shape == wanted.shape
        # A single token is its own center.
        assert torch.equal(found, wanted) or relative_error(found.float(), wanted.float()) < 5e-3


@pytest.mark.parametrize("dtype", VALUES, ids=str)
def test_numbers_are_those_that_were_packed(dtype: torch.dtype) -> None:
    _, k, v = random_qkv(Shape(1, 2, 1, 300), torch.float16)
    found = pack(k, v, 128, 64, dtype).dequantised(300)
    # Half a step of 1/127 of the largest of 64 x 64 numbers, or of 1/8 of a number, evenly spread.
    for x, y, bound in zip(found, (k, v), (0.012, 0.03), strict=True):
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
    for found in pack(x, x, 64, 64, torch.float16).dequantised(130):
        assert torch.equal(found, x.float())


def test_nan_is_told() -> None:
    """Of keys in their tile, of values in their channel."""
    _, k, v = random_qkv(Shape(1, 1, 1, 300), torch.float16)
    k[..., 70, 3] = v[..., 70, 3] = torch.nan
    found_k, found_v = pack(k, v, 64, 64, torch.float16).dequantised(300)
    assert found_k[:, :, 64:128].isnan().all()
    assert found_v[..., 3].isnan().all()
    assert not found_v[..., 4:].isnan().any()
