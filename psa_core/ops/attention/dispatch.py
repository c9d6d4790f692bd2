"""Which attention kernel runs: the one for Hopper where it can, the portable one everywhere else."""

from __future__ import annotations

import torch

from ..block_list.build import BlockList
from ..kernel_table import HOPPER, HOPPER_INT8
from ..packed.rows import VALUE_DTYPES, Packed
from ..pyramid.rows import Pyramid
from ..refusals import refusal
from ..reorder.orders import Orders, as_they_lie
from ..trial_call import check_trial, trial_tensors
from .triton import pyramid_attention_triton

# Tokens of a packed tile that the kernel for Hopper reads: a key block.
PACKED_TILE = 128


def pyramid_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    pyramid: Pyramid,
    block_m: int,
    block_n: int,
    orders: Orders | None = None,
    q_orders: Orders | None = None,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each query block over the rows it keeps; arguments as in :func:`pyramid_attention_triton`."""
    if block_m in HOPPER.block_m and hopper_refusal(q.device, q.dtype, q.shape[-1]) is None:
        from .hopper import pyramid_attention_hopper

        return pyramid_attention_hopper(q, k, v, block_list, pyramid, block_n, orders, q_orders, hidden)
    return pyramid_attention_triton(q, k, v, block_list, pyramid, block_m, block_n, orders, q_orders, hidden)


def hopper_refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the kernel for Hopper cannot run on tensors that the portable one takes; None when it can."""
    return refusal(HOPPER, device, dtype, head_dim, _trial)


def runs_int8_on_hopper(device: torch.device, dtype: torch.dtype, head_dim: int, block_m: int, block_n: int) -> bool:
    """Whether level 1 of a packed pyramid is the kernel for Hopper's: keys in INT8, values in float16, all queries see
    all keys, and every head is quantised."""
    if block_m not in HOPPER_INT8.block_m or block_n != PACKED_TILE or hopper_refusal(device, dtype, head_dim):
        return False
    return refusal(HOPPER_INT8, device, dtype, head_dim, _int8_trial) is None


def pack_for_hopper(k: torch.Tensor, v: torch.Tensor, orders: Orders | None = None) -> Packed:
    """Pack keys and values of level 1 as the kernel for Hopper reads them, and no pooled rows.

    Args:
        k, v, orders: as of :func:`psa_core.ops.packed.triton.pack_triton`.
    """
    from ..packed.triton import pack_triton

    return pack_triton(k, v, PACKED_TILE, PACKED_TILE, VALUE_DTYPES["int8"], orders=orders)


def _int8_trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Run the kernel for Hopper once over a packed pyramid, and compare what it says with what the other one does.

    Raises:
        RuntimeError: it is something else.
    """
    from ..block_list.build import build_block_list
    from ..pyramid.rows import build_pyramid
    from .hopper import pyramid_attention_hopper

    (x, levels), max_level = trial_tensors(device, dtype, head_dim), 2
    orders = as_they_lie(1, 1, 256, device)
    block_list = build_block_list(levels, max_level, PACKED_TILE, 256, "triton")
    call = x, x, x, block_list, build_pyramid(x, x, max_level, "triton", orders), PACKED_TILE, orders
    packed = pack_for_hopper(x, x, orders)
    check_trial(pyramid_attention_hopper(*call, packed=packed), pyramid_attention_hopper(*call))


def _trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Run the kernel for Hopper once, as calibrated attention does."""
    from ..block_list.build import build_block_list
    from ..pyramid.rows import build_pyramid
    from .hopper import pyramid_attention_hopper

    x = torch.ones(1, 1, 256, head_dim, device=device, dtype=dtype)
    block_list = build_block_list(torch.ones(1, 1, 2, 2, dtype=torch.uint8, device=device), 128, 128, 256, "triton")
    orders = as_they_lie(1, 1, 256, device)
    pyramid_attention_hopper(x, x, x, block_list, build_pyramid(x, x, 128, "triton", orders), 128, orders)
