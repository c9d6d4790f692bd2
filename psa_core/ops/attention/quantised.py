"""Pyramid attention over a packed pyramid in Triton: keys in INT8, values in FP8 or float16."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ..block_list.build import BlockList
from ..block_list.triton import TOKEN_BITS
from ..compiling import launcher
from ..current_device import on_device_of_first
from ..grouped import group_of
from ..int8.triton import rows_in_int8
from ..launch import QuantisedLaunch, capability_of, quantised_launch
from ..packed.rows import VALUE_DTYPES, Packed
from ..packed.triton import pack_triton
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start
from .packed_loops import attend_packed_keys, attend_packed_rows
from .triton import attend_keys, attend_pooled, load_queries, locate_tile, store_output

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:
    TensorDescriptor = None

# FP8 weights are this power of two times softmax's, up to 256, so that small ones keep their digits.
FP8_SHIFT = 8


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(
    do_not_specialize=[
        "heads", "q_tokens", "k_tokens", "k_blocks", "n_tiles", "pooled_rows", "blocks_stride_b",
        "blocks_stride_h", "spans_stride_b", "spans_stride_h",
    ]
)  # fmt: skip
def _quantised_attention(
    q_ptr, k_ptr, v_ptr, packed_k_ptr, k_scale_ptr, packed_v_ptr, v_max_ptr, k_rows_ptr, row_scale_ptr,
    v_rows_ptr, exact_k_rows_ptr,
    out_ptr, q_index_ptr, q_of_head_ptr, index_ptr, of_head_ptr, blocks_ptr, spans_ptr, order_ptr, exact_ptr,
    hidden_ptr,
    q_stride_b, q_stride_h, q_stride, k_stride_b, k_stride_h, k_stride, v_stride_b, v_stride_h, v_stride,
    out_stride_b, out_stride_h, out_stride, blocks_stride_b, blocks_stride_h, spans_stride_b, spans_stride_h,
    heads, q_tokens, k_tokens, k_blocks, n_tiles, pooled_rows, scale,
    D: tl.constexpr, BLOCK_M: tl.constexpr, LOG_BLOCK_N: tl.constexpr, N_LEVELS: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, GATHERED_N: tl.constexpr, REORDER: tl.constexpr, ORDERED: tl.constexpr,
    EXACT: tl.constexpr,
    FP8: tl.constexpr, FP8_SHIFT: tl.constexpr, HALF_SUMS: tl.constexpr, V_TOP: tl.constexpr, TMA: tl.constexpr,
    STAGES: tl.constexpr,
    GROUP: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head. With EXACT some heads read the keys and values themselves, and pooled keys.

    GROUP heads share a head of keys and values.
    """
    b, h, query_block, first = locate_tile(order_ptr, heads, q_tokens, BLOCK_M, TILE_M, ORDERED)
    head = b * heads + h
    k_head = head // GROUP
    q_ptr += b * q_stride_b + h * q_stride_h
    q = load_queries(q_ptr, q_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens, D, TILE_M, REORDER)
    blocks_ptr += b * blocks_stride_b + h * blocks_stride_h + query_block * k_blocks
    spans_ptr += b * spans_stride_b + h * spans_stride_h + query_block * N_LEVELS
    first_row = k_head * pooled_rows
    acc = tl.zeros([TILE_M, D], tl.float32)
    row_max = tl.full([TILE_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([TILE_M], tl.float32)
    span = tl.load(spans_ptr)
    v_max_ptr += k_head * D

    # Numbers of 16 bits take twice the registers and shared memory.
    EXACT_N: tl.constexpr = min(GATHERED_N, 64)
    exact = False
    if EXACT:
        exact = tl.load(exact_ptr + head) != 0
        if exact:
            acc, row_max, row_sum = attend_pooled(
                acc, row_max, row_sum, q, exact_k_rows_ptr + first_row * D, v_rows_ptr + first_row * D, blocks_ptr,
                spans_ptr, span, k_tokens, scale, D, LOG_BLOCK_N, N_LEVELS, EXACT_N,
            )  # fmt: skip
            # Values of the rows are shares of the largest, in float16, which rounds no more than the output does.
            acc *= tl.load(v_max_ptr + tl.arange(0, D))[None, :]
            first_index = order_start(of_head_ptr, head, k_tokens) if REORDER else 0
            acc, row_max, row_sum = attend_keys(
                acc, row_max, row_sum, q,
                k_ptr + b * k_stride_b + h // GROUP * k_stride_h,
                v_ptr + b * v_stride_b + h // GROUP * v_stride_h, index_ptr,
                first_index, k_stride, v_stride, blocks_ptr, span, k_tokens, scale, hidden_ptr, first, q_tokens,
                D, LOG_BLOCK_N, EXACT_N, REORDER, CAUSAL,
            )  # fmt: skip
    if not exact:
        steps, q_scale = rows_in_int8(q.to(tl.float32))
        q_scale *= scale
        acc, row_max, row_sum = attend_packed_rows(
            acc, row_max, row_sum, steps, q_scale, k_rows_ptr + first_row * D, row_scale_ptr + first_row,
            v_rows_ptr + first_row * D, blocks_ptr, spans_ptr, span, k_tokens,
            D, LOG_BLOCK_N, N_LEVELS, GATHERED_N, HALF_SUMS,
        )  # fmt: skip
        # Those of the tiles are so many times as large, as are weights.
        SHIFT: tl.constexpr = FP8_SHIFT if FP8 else 0
        acc *= V_TOP * (1 << SHIFT)
        row_sum *= 1 << SHIFT
        acc, row_max, row_sum = attend_packed_keys(
            acc, row_max, row_sum, steps, q_scale, packed_k_ptr, k_scale_ptr,
            packed_v_ptr, k_head.to(tl.int32) * n_tiles, blocks_ptr, span >> TOKEN_BITS, hidden_ptr, first, q_tokens,
            D, LOG_BLOCK_N, TILE_N, FP8, SHIFT, HALF_SUMS, TMA, STAGES, CAUSAL,
        )  # fmt: skip
        acc *= (tl.load(v_max_ptr + tl.arange(0, D)) / V_TOP)[None, :]

    out_ptr += b * out_stride_b + h * out_stride_h
    store_output(out_ptr, out_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens, acc, row_sum, REORDER)


class ExactHeads(NamedTuple):
    """The heads that are not to be quantised.

    Attributes:
        which: bool or uint8 ``[B, H]``.
        k_rows: ``[B, Hk, rows, D]``, contiguous, in the dtype of the keys: their pooled keys, numbered as packed ones
            are. Those of other heads may hold anything. Pooled values they take from what is packed.
    """

    which: torch.Tensor
    k_rows: torch.Tensor


@on_device_of_first
def quantised_attention_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    packed: Packed,
    block_m: int,
    block_n: int,
    orders: Orders | None = None,
    q_orders: Orders | None = None,
    exact: ExactHeads | None = None,
    hidden: torch.Tensor | None = None,
    launch: QuantisedLaunch | None = None,
) -> torch.Tensor:
    """Attention of each query block over the rows it keeps, with queries, keys and values quantised.

    Queries are quantised one by one in the kernel (SageAttention, arXiv 2410.02367, section 4.3), and weights with a
    fixed scale; softmax and sums are float32.

    Args:
        k, v: what exact heads read; of others, their shape.
        packed: keys and values of as many heads as they have, in tiles of the launch's ``tile_n``.
        exact: None for no exact heads.
        q, block_list, block_m, block_n, orders, q_orders, hidden: as of ``pyramid_attention_triton``.
        launch: tiles and warps; None for those of the device.

    Returns:
        As of ``pyramid_attention_triton``.
    """
    batch, heads, q_tokens, d = q.shape
    capability = capability_of(q.device)
    if launch is None:
        launch = quantised_launch(capability, d, block_m, block_n)
    assert packed.tile == launch.tile_n, "keys are packed for another launch"
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    group = group_of(q, k)
    assert orders is None or group == 1, "heads that share keys have no order of their own"
    assert exact is None or exact.k_rows.shape == packed.pooled.k.shape, "exact heads have other levels"
    index, q_index = order_tensors(orders, q), order_tensors(q_orders or orders, q)
    blocks, spans, order = block_list.expand(batch, heads)
    # In memory [B, L, H, D], which models reshape to [B, L, H * D] without a copy.
    out = torch.empty((batch, q_tokens, heads, d), dtype=q.dtype, device=q.device).transpose(1, 2)
    tma = capability == (9, 0) and TensorDescriptor is not None
    packed_k, packed_v = (_descriptor(x) if tma else x for x in (packed.k, packed.v))
    launcher(_quantised_attention, (batch * heads * math.ceil(q_tokens / block_m) * (block_m // launch.tile_m),))(
        q, k, v, packed_k, packed.k_scale, packed_v, packed.v_max, *packed.pooled[:3],
        spans if exact is None else exact.k_rows, out,
        *q_index, *index, blocks, spans, spans if order is None else order,
        spans if exact is None else exact.which.view(torch.uint8), spans if hidden is None else hidden,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        *blocks.stride()[:2], *spans.stride()[:2],
        heads, q_tokens, k.shape[2], blocks.shape[3], packed.k.shape[2], packed.pooled.k.shape[2],
        d**-0.5 * math.log2(math.e),
        D=d, BLOCK_M=block_m, LOG_BLOCK_N=block_n.bit_length() - 1, N_LEVELS=spans.shape[3],
        TILE_M=launch.tile_m, TILE_N=launch.tile_n, GATHERED_N=launch.gathered_n, EXACT=exact is not None,
        REORDER=orders is not None, ORDERED=order is not None, FP8=packed.v.dtype == torch.float8_e4m3fn,
        FP8_SHIFT=FP8_SHIFT, HALF_SUMS=capability in HALF_SUMS, V_TOP=packed.v_top, TMA=tma,
        GROUP=group, CAUSAL=hidden is not None,
        STAGES=launch.num_stages, num_warps=launch.num_warps, num_stages=launch.gathered_stages,
    )  # fmt: skip
    return out


def pack_for(
    k: torch.Tensor,
    v: torch.Tensor,
    precision: str,
    block_m: int,
    block_n: int,
    max_level: int,
    orders: Orders | None = None,
    read: torch.Tensor | None = None,
) -> Packed:
    """Pack keys and values as this device's kernel reads them, for ``"int8"`` or ``"int8+fp8"``.

    The other arguments are those of :func:`psa_core.ops.packed.triton.pack_triton`.
    """
    launch = quantised_launch(capability_of(k.device), k.shape[3], block_m, block_n)
    return pack_triton(k, v, block_n, launch.tile_n, VALUE_DTYPES[precision], max_level, orders, read)


def _descriptor(packed: torch.Tensor) -> TensorDescriptor:
    """Of a packed tensor as a matrix, a tile at a time."""
    rows, columns = packed.shape[-2:]
    return TensorDescriptor.from_tensor(packed.view(-1, columns), [rows, columns])


# GeForce's tensor cores add float16 products up in float16 twice as fast. A tile's sum is at most its number of rows.
HALF_SUMS = ((8, 6), (8, 9), (12, 0))
