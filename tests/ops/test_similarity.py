"""The cosine cap: every backend against its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from psa_core import PSAConfig
from psa_core.ops.backends import triton_installed
from psa_core.ops.similarity.cap import similarity_cap
from psa_core.ops.similarity.naive import similarity_cap_naive

from ..support.tensors import DEVICE, heads_alone, random_orders

needs_triton = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
THRESHOLDS = {2: 0.7, 4: 0.8, 8: 0.9}


def settings(**changes: Any) -> PSAConfig:
    return PSAConfig(block_n=32, **changes)


def keys_of_all_kinds(batch: int, tokens: int, d: int, block_n: int, dtype: torch.dtype) -> torch.Tensor:
    """From blocks of unlike keys to blocks of nearly equal ones."""
    blocks = -(-tokens // block_n)
    alike = torch.linspace(0, 4, blocks, device=DEVICE).repeat_interleave(block_n)[:tokens, None]
    k = torch.randn(batch, 3, tokens, d, device=DEVICE)
    return (k + alike * torch.randn(batch, 3, 1, d, device=DEVICE)).to(dtype)


def check(cap: torch.Tensor, k: torch.Tensor, block_n: int) -> None:
    """A similarity that is its threshold up to rounding may be on either side."""
    least, most = (
        similarity_cap_naive(k, block_n, {level: threshold + slack for level, threshold in THRESHOLDS.items()})
        for slack in (1e-5, -1e-5)
    )
    assert ((least <= cap) & (cap <= most)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("block_n", [32, 64, 128])
@pytest.mark.parametrize(("tokens", "d"), [(1, 64), (7, 128), (128, 64), (300, 128), (389, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_equals_its_definition(block_n: int, tokens: int, d: int, dtype: torch.dtype, backend: str) -> None:
    k = keys_of_all_kinds(2, tokens, d, block_n, dtype)
    config = PSAConfig(block_n=block_n, sim_thresholds={"x2": 0.7, "x4": 0.8, "x8": 0.9})
    cap = similarity_cap(k, config, backend)
    assert cap.dtype == torch.uint8
    assert cap.shape == (2, 3, 1, -(-tokens // block_n))
    check(cap, k, block_n)


@needs_triton
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.mT.contiguous().mT,
        lambda x: torch.stack([x, torch.full_like(x, float("nan"))], -1)[..., 0],
    ],
    ids=["contiguous", "heads after tokens", "tokens innermost", "every second number"],
)
@pytest.mark.parametrize(("block_n", "d", "n_orders"), [(32, 128, 3), (128, 64, 1)])
def test_reads_in_orders(view: Callable[[torch.Tensor], torch.Tensor], block_n: int, d: int, n_orders: int) -> None:
    reordered = keys_of_all_kinds(2, 301, d, block_n, torch.float16)
    orders = random_orders(n_orders, 2, 3, 301)
    k = view(orders.restore(reordered))
    config = PSAConfig(block_n=block_n, sim_thresholds={"x2": 0.7, "x4": 0.8, "x8": 0.9})
    cap = similarity_cap(k, config, "triton", orders)
    check(cap, reordered, block_n)
    for head, order in heads_alone(orders):
        assert torch.equal(cap[head], similarity_cap(k[head], config, "triton", order))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("signs", "cap"), [("+-+-+-+-", 1), ("++--++--", 2), ("+--+-++-", 4), ("+--++--+", 8)])
def test_highest_level_above_its_threshold_counts(signs: str, cap: int, backend: str) -> None:
    # Keys are equal or opposite; the pair (0, 1) is opposite in all but the second.
    pattern = torch.tensor([1.0 if sign == "+" else -1.0 for sign in signs], device=DEVICE)
    k = (torch.randn(1, 1, 1, 64, device=DEVICE) * pattern.repeat(4)[:, None]).half()
    assert similarity_cap(k, settings(), backend).item() == cap


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_block_without_a_whole_pair_is_not_pooled(backend: str) -> None:
    k = torch.randn(1, 1, 1, 64, device=DEVICE).half().expand(1, 1, 32 + 5, 64)
    assert similarity_cap(k, settings(), backend).flatten().tolist() == [8, 4]
    assert similarity_cap(k[:, :, :33], settings(), backend).flatten().tolist() == [8, 1]
    # Not even where any similarity will do.
    lenient = settings(sim_thresholds={"x2": -1.0, "x4": -1.0, "x8": -1.0})
    assert similarity_cap(k[:, :, :33], lenient, backend).flatten().tolist() == [8, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_of_zeros_are_like_nothing(backend: str) -> None:
    k = torch.zeros(1, 1, 64, 64, device=DEVICE, dtype=torch.float16)
    assert similarity_cap(k, settings(), backend).flatten().tolist() == [1, 1]


@pytest.mark.parametrize("level", [0, 1, 2, 4, 8, 16])
def test_only_lowers(level: int) -> None:
    k = torch.randn(1, 1, 320, 64)
    levels = torch.full((1, 1, 1, 10), level, dtype=torch.uint8)
    capped = torch.minimum(levels, similarity_cap(k, settings(sim_thresholds={"x2": -1.0, "x4": 1.0, "x8": 1.0})))
    assert (capped == min(level, 2)).all()
