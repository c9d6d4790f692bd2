"""The kernel for Hopper over a packed pyramid, against the oracle on what was packed, and against exact attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.packed.naive import quantised_queries
from psa_core.ops.packed.rows import Packed
from psa_core.ops.pyramid.rows import Pyramid, build_pyramid
from psa_core.ops.reorder import Orders

from ..support.tensors import DEVICE, Shape, random_levels, random_orders, random_qkv, relative_error

if not triton_installed():
    pytest.skip("Triton is not installed", allow_module_level=True)

from psa_core.ops.attention.dispatch import PACKED_TILE, pack_for_hopper, runs_int8_on_hopper

pytestmark = pytest.mark.gpu
# To the oracle, which takes queries as they are, but for level 1 alone; and of exact attention, on random tensors.
BOUND, BOUND_LEVEL_1, ADDED = 0.01, 4e-3, 0.025
SHAPES = [
    Shape(2, 2, 257, 300, 64),
    Shape(1, 3, 1000, 1000, 128),
    Shape(2, 2, 70, 4099, 128),
    Shape(1, 2, 5000, 129, 64),
    Shape(1, 1, 1, 1, 128),
]


@pytest.fixture(autouse=True)
def _on_hopper() -> None:
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("no Hopper GPU")
    # One that does not compile would be left to the portable kernels, and these tests would say nothing of it.
    assert runs_int8_on_hopper(DEVICE, torch.bfloat16, 128, 128, PACKED_TILE)


def run(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, levels: torch.Tensor, shape: Shape,
    orders: Orders | None = None, q_orders: Orders | None = None,
) -> tuple[torch.Tensor, Packed, Pyramid]:  # fmt: skip
    """The output, and what the kernel made it of."""
    from psa_core.ops.attention.hopper import pyramid_attention_hopper

    max_level = int(levels.max().clamp_min(1))
    block_list = build_block_list(levels, max_level, shape.block_n, shape.k_tokens, "triton")
    pyramid = build_pyramid(k, v, max_level, "triton", orders)
    packed = pack_for_hopper(k, v, orders)
    out = pyramid_attention_hopper(q, k, v, block_list, pyramid, shape.block_n, orders, q_orders, packed=packed)
    return out, packed, pyramid


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, levels: torch.Tensor, shape: Shape, orders: Orders | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The output, what the oracle makes of packed tokens and pooled rows, and exact attention, all in order."""
    q_orders = None if orders is None or shape.q_tokens == shape.k_tokens else random_orders(2, *q.shape[:3])
    out, packed, pyramid = run(q, k, v, levels, shape, orders, q_orders)
    sizes = shape.block_m, shape.block_n
    group = q.shape[1] // k.shape[1]
    meant = [x.repeat_interleave(group, 1) for x in packed.dequantised(shape.k_tokens)]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    rows = pyramid._replace(k=pyramid.k.repeat_interleave(group, 1), v=pyramid.v.repeat_interleave(group, 1))
    if orders is not None:
        q_orders = q_orders or orders
        q, k, v, out = q_orders.take(q), orders.take(k), orders.take(v), q_orders.take(out)
    queries = quantised_queries(q) if levels.max() == 1 else q
    oracle = pyramid_attention_naive(queries, *meant, levels, *sizes, rows)
    return out, oracle, pyramid_attention_naive(q, k, v, levels, *sizes, rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("in_orders", [False, True])
@pytest.mark.parametrize("level_1", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("poisoned_memory")
def test_as_the_oracle(shape: Shape, level_1: bool, in_orders: bool, dtype: torch.dtype) -> None:
    q, k, v = random_qkv(shape, dtype)
    k = (k + 2 * torch.randn(shape.batch, shape.heads, 1, shape.d, device=DEVICE)).to(dtype)
    # As models have them.
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    levels = random_levels(shape)
    if level_1:
        levels = (levels > 0).to(torch.uint8)
    orders = random_orders(2, shape.batch, shape.heads, shape.k_tokens) if in_orders else None
    out, oracle, exact = attend(q, k, v, levels, shape, orders)
    assert out.dtype == dtype
    assert relative_error(out, oracle) < (BOUND_LEVEL_1 if level_1 else BOUND)
    assert relative_error(out, exact) < ADDED


@pytest.mark.parametrize("levels", ["only pooled", "some rows keep nothing", "one block"])
def test_levels_that_are_missing(levels: str) -> None:
    shape = Shape(2, 2, 500, 700, 128)
    q, k, v = random_qkv(shape, torch.bfloat16)
    kept = random_levels(shape)
    if levels == "only pooled":
        kept = kept.clamp_min(2)
    elif levels == "some rows keep nothing":
        kept[:, :, 1:3] = 0
    else:
        kept = torch.zeros_like(kept)
        kept[..., -1] = 1
    out, oracle, _ = attend(q, k, v, kept, shape)
    assert relative_error(out, oracle) < BOUND
    if levels == "some rows keep nothing":
        assert not out[:, :, 128:384].any()


def test_heads_that_share_keys() -> None:
    shape = Shape(2, 6, 300, 300, 128)
    q, k, v = random_qkv(shape, torch.float16)
    out, oracle, _ = attend(q, k[:, ::3], v[:, ::3], random_levels(shape), shape)
    assert relative_error(out, oracle) < BOUND


EXTREMES: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {
    "a channel of keys 50 times as large": lambda q, k, v: (q / 8, _scaled(k, 50), v),
    "a channel of values 100 times as large": lambda q, k, v: (q, k, _scaled(v, 100)),
    "values beyond float16": lambda q, k, v: (q, k, v * 1e6),
    "the same key everywhere": lambda q, k, v: (q, k[:, :, :1].expand(k.shape), v),
    "zeros": lambda q, k, v: (q * 0, k * 0, v),
    "logits of some hundreds": lambda q, k, v: (q * 30, k, v),
}


@pytest.mark.parametrize("change", EXTREMES.values(), ids=EXTREMES)
def test_extremes(change: Callable[..., tuple[torch.Tensor, ...]]) -> None:
    shape = Shape(1, 2, 300, 500, 128)
    levels = (random_levels(shape) > 0).to(torch.uint8)
    out, oracle, _ = attend(*change(*random_qkv(shape, torch.bfloat16)), levels, shape)
    assert relative_error(out, oracle) < 2 * BOUND


@pytest.mark.parametrize("where", [0, 1, 2])
def test_nan_in_gives_nan_out(where: int) -> None:
    shape = Shape(1, 2, 256, 260, 128)
    tensors = random_qkv(shape, torch.float16)
    tensors[where][0, 0, 3, 2] = torch.nan
    out, _, _ = attend(*tensors, torch.ones(1, 2, *shape.blocks, dtype=torch.uint8, device=DEVICE), shape)
    assert out[0, 0, 3].isnan().any()
    assert not out[0, 1].isnan().any()


def test_repeats() -> None:
    """Work tiles of very different sizes, again and again: none finds in shared memory what another has left there."""
    shape = Shape(2, 6, 3000, 3000, 128)
    q, k, v = random_qkv(shape, torch.bfloat16)
    levels = random_levels(shape)
    levels *= torch.rand(levels.shape, device=DEVICE) < torch.rand(*levels.shape[:3], 1, device=DEVICE)
    first, oracle, _ = attend(q, k, v, levels, shape)
    assert relative_error(first, oracle) < BOUND
    for _ in range(30):
        assert torch.equal(run(q, k, v, levels, shape)[0], first)


def _scaled(x: torch.Tensor, by: float) -> torch.Tensor:
    x = x.clone()
    x[..., 5] *= by
    return x
