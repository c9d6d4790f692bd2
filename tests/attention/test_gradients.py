"""Gradients of the plain backend: against autograd through the oracle, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from psa_core import BackendError, PSAAttention, PSAConfig, RadialMask, attention_from_levels, pyramid_sparse_attention
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.reorder.gilbert import gilbert_order

from ..support.tensors import Shape, random_levels, random_qkv, relative_error

CPU = torch.device("cpu")
RATIOS = {1: (0.0, 0.3), 2: (0.3, 0.5), 4: (0.5, 0.6), 8: (0.6, 0.8), 0: (0.8, 1.0)}
CONFIG = PSAConfig(block_m=64, block_n=32, mask_ratios=RATIOS, mask_mode="topk")
GRID, TEXT = (3, 6, 10), 21
SHAPE = Shape(2, 2, 201, 201, 64, 64, 32)


def recorded(shape: Shape, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [x.requires_grad_() for x in random_qkv(shape, dtype, CPU)]


def gradients(call: Callable[..., torch.Tensor], qkv: list[torch.Tensor], weight: torch.Tensor) -> tuple[Any, ...]:
    """Of a weighted sum of the output."""
    return torch.autograd.grad((call(*qkv) * weight).sum(), qkv)


def check(call: Callable[..., torch.Tensor], expected: Callable[..., torch.Tensor], shape: Shape) -> None:
    qkv, weight = recorded(shape), torch.randn(*random_qkv(shape, device=CPU)[0].shape, dtype=torch.float64)
    pairs = zip(gradients(call, qkv, weight), gradients(expected, qkv, weight), strict=True)
    assert all(relative_error(actual, exact) < 1e-10 for actual, exact in pairs)


@pytest.mark.parametrize("shape", [SHAPE, Shape(1, 1, 70, 97, 48, 64, 32), Shape(1, 2, 130, 257, 64, 128, 128)])
def test_of_a_level_map_are_those_of_the_oracle(shape: Shape) -> None:
    levels, sizes = random_levels(shape, CPU), {"block_m": shape.block_m, "block_n": shape.block_n}
    check(
        lambda q, k, v: attention_from_levels(q, k, v, levels, **sizes),
        lambda q, k, v: pyramid_attention_naive(q, k, v, levels, **sizes),
        shape,
    )


@pytest.mark.parametrize(
    ("config", "order"),
    [
        (CONFIG, True),
        (CONFIG.replace(use_sim_mask=True, importance="mean", mask_mode="thresholdbound"), True),
        (CONFIG.replace(use_rearrange=False), False),
        (CONFIG.replace(radial=RadialMask(decay_factor=0.2, block_size=8, mode="coarsen")), False),
    ],
    ids=["Gilbert", "capped", "raster", "radial"],
)
def test_of_the_whole_op_are_those_of_the_oracle(config: PSAConfig, order: bool) -> None:
    extra = {"grid": GRID, "text_length": TEXT}
    there = np.concatenate([np.arange(TEXT), TEXT + gilbert_order(GRID)]) if order else np.arange(SHAPE.q_tokens)
    back = np.argsort(there)

    def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _, info = pyramid_sparse_attention(q, k, v, config, **extra, return_info=True)
        reordered = (x[:, :, there] for x in (q, k, v))
        return pyramid_attention_naive(*reordered, info.levels, config.block_m, config.block_n)[:, :, back]

    check(lambda q, k, v: pyramid_sparse_attention(q, k, v, config, **extra), by_hand, SHAPE)


def test_are_those_of_finite_differences() -> None:
    levels = torch.tensor([[[[1, 2, 0], [8, 1, 4]]]], dtype=torch.uint8)
    qkv = recorded(Shape(1, 1, 66, 70, 2))
    assert torch.autograd.gradcheck(
        lambda q, k, v: attention_from_levels(q, k, v, levels, block_m=64, block_n=32), qkv, fast_mode=True
    )


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_one_tensor_that_wants_them_is_enough(wanted: int) -> None:
    qkv = random_qkv(SHAPE, torch.float16, CPU)
    qkv[wanted].requires_grad_()
    levels, module = random_levels(SHAPE, CPU), PSAAttention(CONFIG)
    for out in (
        pyramid_sparse_attention(*qkv, CONFIG),
        attention_from_levels(*qkv, levels, block_m=64, block_n=32),
        module(*qkv),
        PSAAttention(PSAConfig(type="dense"))(*qkv),
    ):
        (gradient,) = torch.autograd.grad(out.sum(), qkv[wanted])
        assert gradient.isfinite().all()
        assert gradient.any()


def test_kernels_say_that_they_have_none() -> None:
    qkv, levels = recorded(SHAPE, torch.float16), random_levels(SHAPE, CPU)
    for call in (
        lambda: pyramid_sparse_attention(*qkv, CONFIG, backend="triton"),
        lambda: attention_from_levels(*qkv, levels, block_m=64, block_n=32, backend="triton"),
        lambda: PSAAttention(CONFIG, "triton")(*qkv),
    ):
        with pytest.raises(BackendError, match=r"'triton': the kernels have no gradients.*torch.no_grad"):
            call()
