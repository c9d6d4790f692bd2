"""Reordering and pooling in Triton against their definitions."""

from __future__ import annotations

import pytest
import torch

from psa_core.backends import triton_installed
from psa_core.ops.pyramid.naive import pooled_rows

from .support import DEVICE, Shape, random_qkv, relative_error

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.skipif(not triton_installed(), reason="Triton is not installed"),
]


@pytest.mark.parametrize("tokens", [1, 5, 127, 128, 300])
@pytest.mark.parametrize("d", [64, 128])
@pytest.mark.parametrize("max_level", [2, 8, 128])
def test_pooled_rows_are_means_of_the_tokens_that_exist(tokens: int, d: int, max_level: int) -> None:
    from psa_core.ops.pyramid.triton import pool_triton

    _, k, _ = random_qkv(Shape(2, 3, 1, tokens, d), torch.float16)
    # The strides of a model's tensors: heads inside tokens.
    k = k.transpose(1, 2).contiguous().transpose(1, 2)

    rows = pool_triton(k, max_level)

    levels = [1 << i for i in range(1, max_level.bit_length())]
    expected = torch.cat([pooled_rows(k.double(), level)[0] for level in levels], 2)
    assert rows.dtype == k.dtype
    assert rows.is_contiguous()
    # Rounded once, from a sum in float32.
    assert relative_error(rows, expected) < 2**-11


@pytest.mark.parametrize("shape", [Shape(1, 1, 1, 1), Shape(2, 3, 1, 200, 128), Shape(1, 2, 1, 129, 64)])
def test_gathered_tokens_are_the_same_to_the_bit(shape: Shape) -> None:
    from psa_core.ops.pyramid.triton import gather_triton

    _, k, v = random_qkv(shape, torch.float16)
    k = k.mT.contiguous().mT
    index = torch.randperm(shape.k_tokens, device=DEVICE)
    for x in (k, v[:, :1], v.expand(-1, -1, -1, -1)):
        assert torch.equal(gather_triton(x, index), x[:, :, index])
        assert torch.equal(gather_triton(x, index[::3].contiguous()), x[:, :, index[::3]])
