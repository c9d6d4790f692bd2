"""Pyramid attention over a packed pyramid in Triton: level 1 in INT8 and FP8 or float16, pooled rows as they are."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..block_list.build import BlockList
from ..block_list.triton import TOKEN_BITS
from ..compiling import launcher
from ..current_device import on_device_of_first
from ..grouped import group_of
from ..launch import QuantisedLaunch, capability_of, quantised_launch
from ..packed.rows import INT8_TOP, VALUE_DTYPES, Packed
from ..packed.triton import pack_triton
from ..pyramid.rows import Pyramid
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start
from .triton import attend_keys, attend_pooled, load_queries, locate_tile, seen_rows, store_output

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:
    TensorDescriptor = None

# FP8 weights are this power of two times softmax's, up to 256, so that small ones keep their digits.
FP8_SHIFT = 8


@triton.jit
def _tile(packed, tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TMA: tl.constexpr):
    """A tile ``[ROWS, COLUMNS]`` of a packed tensor, from its descriptor or by pointers."""
    if TMA:
        rows = packed.load([tile * ROWS, 0])
    else:
        at = tile.to(tl.int64) * (ROWS * COLUMNS) + tl.arange(0, ROWS)[:, None] * COLUMNS
        rows = tl.load(packed + (at + tl.arange(0, COLUMNS)[None, :]))
    return rows


@triton.jit
def _in_operand_order(p):
    """The columns of P in the order of packed FP8 values, which each thread then multiplies as it has them.

    Of 16 columns ``8 j + 2 c + e`` of a product, thread c of four has ``e`` and ``j`` of 0 and 1; of the operand of the
    next product it must have ``4 c`` to ``4 c + 3``.
    """
    M: tl.constexpr = p.shape[0]
    N: tl.constexpr = p.shape[1]
    p = tl.permute(tl.reshape(p, (M, N // 16, 2, 4, 2)), (0, 1, 3, 2, 4))
    return tl.reshape(p, (M, N))


@triton.jit
def _attend_packed(
    acc, row_max, row_sum, q, q_scale, packed_k, k_scale_ptr, packed_v, first_tile, blocks_ptr, n_rows,
    begin, stop, seen,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, TILE_N: tl.constexpr,
    FP8: tl.constexpr, SHIFT: tl.constexpr, HALF_SUMS: tl.constexpr, TMA: tl.constexpr, STAGES: tl.constexpr,
    MASK: tl.constexpr,
):  # fmt: skip
    """Online softmax (base 2) over the listed blocks of level 1, in tiles from begin to stop.

    Args:
        q: int8 ``[M, D]``; a step of it and a step of a key stand for ``q_scale`` by the key's scale of a logit.
        acc, row_sum: of weights ``2 ** SHIFT`` times as large as softmax's.
        seen: as of ``attend_level``, with MASK.
    """
    TILES: tl.constexpr = (1 << LOG_BLOCK_N) // TILE_N
    # Below any product of two rows of INT8.
    LOWEST: tl.constexpr = -(1 << 30)
    slot = tl.arange(0, TILE_N)
    # Looked up a tile ahead, so that no load waits for another.
    block = tl.load(blocks_ptr + (begin >> LOG_BLOCK_N), mask=n_rows > begin, other=0)
    for start in tl.range(begin, stop, TILE_N, num_stages=STAGES):
        tile = first_tile + block * TILES + start // TILE_N % TILES
        after = start + TILE_N
        block = tl.load(blocks_ptr + (after >> LOG_BLOCK_N), mask=after < n_rows, other=0)
        scale = q_scale * tl.load(k_scale_ptr + tile)
        s = tl.dot(q, tl.trans(_tile(packed_k, tile, TILE_N, D, TMA)), out_dtype=tl.int32)
        if MASK:
            s = tl.where((start + slot)[None, :] < seen[:, None], s, LOWEST)
        new_max = tl.maximum(row_max, tl.max(s, 1).to(tl.float32) * scale)
        p = tl.exp2(s.to(tl.float32) * scale[:, None] - (new_max - SHIFT)[:, None])
        if MASK:
            # By its product: a scale of zero would let it through.
            p = tl.where(s > LOWEST, p, 0.0)
        elif n_rows - start < TILE_N:
            p = tl.where((slot < n_rows - start)[None, :], p, 0.0)
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, 1)
        acc = acc * rescale[:, None]
        if FP8:
            # Tensor cores keep 13 bits of a sum of FP8 products: enough for a tile, and not for all of them. Triton
            # leaves a sum outside where it is told how many products may be added inside, as it tells itself on Hopper.
            v = tl.trans(_tile(packed_v, tile, D, TILE_N, TMA))
            p = _in_operand_order(p.to(tl.float8e4nv))
            acc += tl.dot(p, v, max_num_imprecise_acc=None if TMA else TILE_N)
        elif HALF_SUMS:
            v = _tile(packed_v, tile, TILE_N, D, TMA)
            acc += tl.dot(p.to(tl.float16), v, out_dtype=tl.float16).to(tl.float32)
        else:
            acc = tl.dot(p.to(tl.float16), _tile(packed_v, tile, TILE_N, D, TMA), acc)
        row_max = new_max
    return acc, row_max, row_sum


@triton.jit
def _attend_packed_keys(
    acc, row_max, row_sum, q, q_scale, packed_k, k_scale_ptr, packed_v, first_tile, blocks_ptr, n_rows,
    hidden_ptr, first, q_tokens,
    D: tl.constexpr, LOG_BLOCK_N: tl.constexpr, TILE_N: tl.constexpr,
    FP8: tl.constexpr, SHIFT: tl.constexpr, HALF_SUMS: tl.constexpr, TMA: tl.constexpr, STAGES: tl.constexpr,
    CAUSAL: tl.constexpr,
):  # fmt: skip
    """Online softmax over all listed blocks of level 1: as ``attend_keys`` first the tiles that all queries see."""
    seen, whole = 0, n_rows
    if CAUSAL:
        seen = seen_rows(n_rows, hidden_ptr, first, q_tokens, q.shape[0])
        whole = tl.min(seen, 0) // TILE_N * TILE_N
    for cut in tl.static_range(2 if CAUSAL else 1):
        acc, row_max, row_sum = _attend_packed(
            acc, row_max, row_sum, q, q_scale, packed_k, k_scale_ptr, packed_v, first_tile, blocks_ptr, n_rows,
            whole if cut else 0, n_rows if cut else whole, seen,
            D, LOG_BLOCK_N, TILE_N, FP8, SHIFT, HALF_SUMS, TMA, STAGES, cut == 1,
        )  # fmt: skip
    return acc, row_max, row_sum


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(
    do_not_specialize=[
        "heads", "q_tokens", "k_tokens", "k_blocks", "n_tiles", "pooled_rows", "blocks_stride_b",
        "blocks_stride_h", "spans_stride_b", "spans_stride_h",
    ]
)  # fmt: skip
def _quantised_attention(
    q_ptr, k_ptr, v_ptr, packed_k_ptr, k_scale_ptr, center_ptr, packed_v_ptr, v_max_ptr, pooled_k_ptr, pooled_v_ptr,
    out_ptr, q_index_ptr, q_of_head_ptr, index_ptr, of_head_ptr, blocks_ptr, spans_ptr, order_ptr, exact_ptr,
    hidden_ptr,
    q_stride_b, q_stride_h, q_stride, k_stride_b, k_stride_h, k_stride, v_stride_b, v_stride_h, v_stride,
    out_stride_b, out_stride_h, out_stride, blocks_stride_b, blocks_stride_h, spans_stride_b, spans_stride_h,
    heads, q_tokens, k_tokens, k_blocks, n_tiles, pooled_rows, scale,
    D: tl.constexpr, BLOCK_M: tl.constexpr, LOG_BLOCK_N: tl.constexpr, N_LEVELS: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, WIDE_N: tl.constexpr, REORDER: tl.constexpr, ORDERED: tl.constexpr,
    EXACT: tl.constexpr,
    FP8: tl.constexpr, FP8_SHIFT: tl.constexpr, HALF_SUMS: tl.constexpr,
    INT8_TOP: tl.constexpr, V_TOP: tl.constexpr, TMA: tl.constexpr, STAGES: tl.constexpr,
    GROUP: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head. With EXACT some heads read the keys and values themselves.

    GROUP heads share a head of keys and values.
    """
    b, h, query_block, first = locate_tile(order_ptr, heads, q_tokens, BLOCK_M, TILE_M, ORDERED)
    head = b * heads + h
    k_head = head // GROUP
    q_ptr += b * q_stride_b + h * q_stride_h
    q = load_queries(q_ptr, q_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens, D, TILE_M, REORDER)
    blocks_ptr += b * blocks_stride_b + h * blocks_stride_h + query_block * k_blocks
    spans_ptr += b * spans_stride_b + h * spans_stride_h + query_block * N_LEVELS
    pooled_k_ptr += k_head * pooled_rows * D
    pooled_v_ptr += k_head * pooled_rows * D
    acc = tl.zeros([TILE_M, D], tl.float32)
    row_max = tl.full([TILE_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([TILE_M], tl.float32)

    span = tl.load(spans_ptr)
    acc, row_max, row_sum = attend_pooled(
        acc, row_max, row_sum, q, pooled_k_ptr, pooled_v_ptr, blocks_ptr, spans_ptr, span, k_tokens, scale,
        D, LOG_BLOCK_N, N_LEVELS, WIDE_N,
    )  # fmt: skip

    exact = False
    if EXACT:
        exact = tl.load(exact_ptr + head) != 0
        if exact:
            first_index = order_start(of_head_ptr, head, k_tokens) if REORDER else 0
            acc, row_max, row_sum = attend_keys(
                acc, row_max, row_sum, q,
                k_ptr + b * k_stride_b + h // GROUP * k_stride_h,
                v_ptr + b * v_stride_b + h // GROUP * v_stride_h, index_ptr,
                first_index, k_stride, v_stride, blocks_ptr, span, k_tokens, scale, hidden_ptr, first, q_tokens,
                D, LOG_BLOCK_N, WIDE_N, REORDER, CAUSAL,
            )  # fmt: skip
    if not exact:
        # Sums so far in the units of packed values and weights, and the maximum as if keys were less their center.
        SHIFT: tl.constexpr = FP8_SHIFT if FP8 else 0
        WEIGHTS: tl.constexpr = 1 << SHIFT
        d = tl.arange(0, D)
        v_max = tl.load(v_max_ptr + k_head * D + d)
        acc *= tl.where(v_max > 0, V_TOP * WEIGHTS / v_max, 0.0)[None, :]
        row_sum *= WEIGHTS
        wide = q.to(tl.float32)
        row_max -= tl.sum(wide * tl.load(center_ptr + k_head * D + d)[None, :], 1) * scale
        largest = tl.max(wide.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 1).to(tl.float32, bitcast=True)
        steps = tl.floor(wide * tl.where(largest > 0, INT8_TOP / largest, 0.0)[:, None] + 0.5)
        acc, row_max, row_sum = _attend_packed_keys(
            acc, row_max, row_sum, steps.to(tl.int8), largest * (scale / INT8_TOP), packed_k_ptr, k_scale_ptr,
            packed_v_ptr, k_head.to(tl.int32) * n_tiles, blocks_ptr, span >> TOKEN_BITS, hidden_ptr, first, q_tokens,
            D, LOG_BLOCK_N, TILE_N, FP8, SHIFT, HALF_SUMS, TMA, STAGES, CAUSAL,
        )  # fmt: skip
        acc *= (tl.load(v_max_ptr + k_head * D + d) / V_TOP)[None, :]

    out_ptr += b * out_stride_b + h * out_stride_h
    store_output(out_ptr, out_stride, q_index_ptr, q_of_head_ptr, head, first, q_tokens, acc, row_sum, REORDER)


@on_device_of_first
def quantised_attention_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    pyramid: Pyramid,
    packed: Packed,
    block_m: int,
    block_n: int,
    orders: Orders | None = None,
    q_orders: Orders | None = None,
    exact_heads: torch.Tensor | None = None,
    hidden: torch.Tensor | None = None,
    launch: QuantisedLaunch | None = None,
) -> torch.Tensor:
    """Attention of each query block over the rows it keeps, with queries, keys and values of level 1 quantised.

    Queries are quantised one by one in the kernel (SageAttention, arXiv 2410.02367, section 4.3), and weights with a
    fixed scale; softmax and sums are float32.

    Args:
        packed: keys and values of level 1, of as many heads as they have, in tiles of the launch's ``tile_n``.
        exact_heads: bool or uint8 ``[B, H]``, the heads that are not to be quantised; None for none.
        q, k, v, block_list, pyramid, block_m, block_n, orders, q_orders, hidden: as of ``pyramid_attention_triton``.
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
    index, q_index = order_tensors(orders, q), order_tensors(q_orders or orders, q)
    blocks, spans, order = block_list.expand(batch, heads)
    # In memory [B, L, H, D], which models reshape to [B, L, H * D] without a copy.
    out = torch.empty((batch, q_tokens, heads, d), dtype=q.dtype, device=q.device).transpose(1, 2)
    tma = capability == (9, 0) and TensorDescriptor is not None
    packed_k, packed_v = (_descriptor(x) if tma else x for x in (packed.k, packed.v))
    launcher(_quantised_attention, (batch * heads * math.ceil(q_tokens / block_m) * (block_m // launch.tile_m),))(
        q, k, v, packed_k, packed.k_scale, packed.center, packed_v, packed.v_max, pyramid.k, pyramid.v, out,
        *q_index, *index, blocks, spans, spans if order is None else order,
        spans if exact_heads is None else exact_heads.view(torch.uint8), spans if hidden is None else hidden,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        *blocks.stride()[:2], *spans.stride()[:2],
        heads, q_tokens, k.shape[2], blocks.shape[3], packed.k.shape[2], pyramid.k.shape[2],
        d**-0.5 * math.log2(math.e),
        D=d, BLOCK_M=block_m, LOG_BLOCK_N=block_n.bit_length() - 1, N_LEVELS=spans.shape[3],
        TILE_M=launch.tile_m, TILE_N=launch.tile_n, WIDE_N=launch.wide_n, EXACT=exact_heads is not None,
        REORDER=orders is not None, ORDERED=order is not None, FP8=packed.v.dtype == torch.float8_e4m3fn,
        FP8_SHIFT=FP8_SHIFT, HALF_SUMS=capability in HALF_SUMS, INT8_TOP=INT8_TOP, V_TOP=packed.v_top, TMA=tma,
        GROUP=group, CAUSAL=hidden is not None,
        STAGES=launch.num_stages, num_warps=launch.num_warps, num_stages=launch.wide_stages,
    )  # fmt: skip
    return out


def pack_for(
    k: torch.Tensor, v: torch.Tensor, precision: str, block_m: int, block_n: int, orders: Orders | None = None
) -> Packed:
    """Pack keys and values as this device's kernel reads them, for ``"int8"`` or ``"int8+fp8"``."""
    launch = quantised_launch(capability_of(k.device), k.shape[3], block_m, block_n)
    return pack_triton(k, v, block_n, launch.tile_n, VALUE_DTYPES[precision], orders)


def _descriptor(packed: torch.Tensor) -> TensorDescriptor:
    """Of a packed tensor as a matrix, a tile at a time."""
    rows, columns = packed.shape[-2:]
    return TensorDescriptor.from_tensor(packed.view(-1, columns), [rows, columns])


# GeForce's tensor cores add float16 products up in float16 twice as fast. A tile's sum is at most its number of rows.
HALF_SUMS = ((8, 6),)
