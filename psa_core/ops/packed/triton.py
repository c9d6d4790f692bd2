"""Packing in Triton: what channels need is measured first, then every token is read and written once."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..compiling import launcher
from ..current_device import on_device_of_first
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start
from .rows import INT8_TOP, VALUE_TOP, Packed

# Tokens that one program measures, those of them it reads at a time, and so many times that number make the center.
SPAN = 512
CHUNK = 64
CENTER_CHUNKS = 16


@triton.jit
def _magnitude(x):
    """Bits of the magnitude of float32. As integers they compare like the numbers, and NaN is above them all."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(do_not_specialize=["heads", "n_tokens"])
def _measure_channels(
    k_ptr, v_ptr, center_ptr, v_max_ptr,
    k_stride_b, k_stride_h, k_stride, k_stride_d, v_stride_b, v_stride_h, v_stride, v_stride_d,
    heads, n_tokens,
    D: tl.constexpr, SPAN: tl.constexpr, CHUNK: tl.constexpr, CENTER_CHUNKS: tl.constexpr,
):  # fmt: skip
    """Largest magnitude of each channel of the values over one span; the first span's program has the center, too.

    The center is the mean of keys at even distances: any vector would do, and the mean of all would cost a pass.
    """
    head = tl.program_id(0) % heads
    span = tl.program_id(0) // heads % tl.cdiv(n_tokens, SPAN)
    b = (tl.program_id(0) // heads // tl.cdiv(n_tokens, SPAN)).to(tl.int64)
    d = tl.arange(0, D)
    slot = tl.arange(0, CHUNK)
    channels = (b * heads + head) * D + d
    largest = tl.zeros([D], tl.int32)
    v_at = v_ptr + b * v_stride_b + head.to(tl.int64) * v_stride_h + d[None, :] * v_stride_d
    for start in range(0, SPAN, CHUNK):
        # Tokens past the last repeat it.
        token = tl.minimum(span * SPAN + start + slot, n_tokens - 1).to(tl.int64)
        v = tl.load(v_at + token[:, None] * v_stride).to(tl.float32)
        largest = tl.maximum(largest, tl.max(_magnitude(v), 0))
    tl.atomic_max(v_max_ptr + channels, largest)
    if span == 0:
        step = tl.cdiv(n_tokens, CHUNK * CENTER_CHUNKS)
        k_at = k_ptr + b * k_stride_b + head.to(tl.int64) * k_stride_h + d[None, :] * k_stride_d
        sums = tl.zeros([D], tl.float32)
        for start in range(0, CHUNK * CENTER_CHUNKS, CHUNK):
            token = ((start + slot) * step).to(tl.int64)[:, None]
            sums += tl.sum(tl.load(k_at + token * k_stride, mask=token < n_tokens, other=0.0).to(tl.float32), 0)
        tl.store(center_ptr + channels, sums / tl.cdiv(n_tokens, step).to(tl.float32))


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(do_not_specialize=["heads", "n_tokens", "n_tiles"])
def _pack(
    k_ptr, v_ptr, index_ptr, of_head_ptr, center_ptr, v_max_ptr, k_out_ptr, k_scale_ptr, v_out_ptr,
    k_stride_b, k_stride_h, k_stride, k_stride_d, v_stride_b, v_stride_h, v_stride, v_stride_d,
    heads, n_tokens, n_tiles,
    D: tl.constexpr, TILE: tl.constexpr, REORDER: tl.constexpr,
    INT8_TOP: tl.constexpr, VALUE_TOP: tl.constexpr, TRANSPOSE: tl.constexpr,
):  # fmt: skip
    """One tile of one head."""
    # Neighbouring programs take neighbouring heads, which lie side by side in the memory of most models.
    head = tl.program_id(0) % heads
    tile = tl.program_id(0) // heads % n_tiles
    b = (tl.program_id(0) // heads // n_tiles).to(tl.int64)
    slot = tl.arange(0, TILE)
    d = tl.arange(0, D)
    position = tl.minimum(tile * TILE + slot, n_tokens - 1)
    if REORDER:
        token = tl.load(index_ptr + (order_start(of_head_ptr, b * heads + head, n_tokens) + position))
    else:
        token = position.to(tl.int64)
    k_at = k_ptr + b * k_stride_b + head.to(tl.int64) * k_stride_h + d[None, :] * k_stride_d
    v_at = v_ptr + b * v_stride_b + head.to(tl.int64) * v_stride_h + d[None, :] * v_stride_d
    k = tl.load(k_at + token[:, None] * k_stride).to(tl.float32)
    v = tl.load(v_at + token[:, None] * v_stride).to(tl.float32)
    channels = (b * heads + head) * D + d
    tile_of_all = (b * heads + head) * n_tiles + tile

    k -= tl.load(center_ptr + channels)[None, :]
    k_max = tl.max(_magnitude(k)).to(tl.float32, bitcast=True)
    tl.store(k_scale_ptr + tile_of_all, k_max / INT8_TOP)
    rounded = tl.floor(k * tl.where(k_max > 0, INT8_TOP / k_max, 0.0) + 0.5)
    tl.store(k_out_ptr + tile_of_all * (TILE * D) + slot[:, None] * D + d[None, :], rounded.to(tl.int8))

    v_max = tl.load(v_max_ptr + channels)
    v = (v * tl.where(v_max > 0, VALUE_TOP / v_max, 0.0)[None, :]).to(v_out_ptr.dtype.element_ty)
    v_out = v_out_ptr + tile_of_all * (TILE * D)
    if TRANSPOSE:
        # In the order that the operand of a matrix instruction has them (`Packed.v`).
        place = slot // 16 * 16 + slot // 2 % 4 * 4 + slot // 8 % 2 * 2 + slot % 2
        tl.store(v_out + d[None, :] * TILE + place[:, None], v)
    else:
        tl.store(v_out + slot[:, None] * D + d[None, :], v)


@on_device_of_first
def pack_triton(
    k: torch.Tensor, v: torch.Tensor, block_n: int, tile: int, dtype: torch.dtype, orders: Orders | None = None
) -> Packed:
    """Pack keys and values.

    Args:
        k, v: ``[B, H, L, D]``, float16 or bfloat16, any strides; D is 64 or 128.
        block_n: tokens of a key block, whose multiple the packed tokens are.
        tile: tokens that share a scale, a power of two that divides ``block_n``.
        dtype: of the values: float8_e4m3fn or float16.
        orders: in which the tokens of each head are packed. None for the order they have.
    """
    batch, heads, tokens, d = k.shape
    n_tiles = math.ceil(tokens / block_n) * (block_n // tile)
    new, transpose = k.new_empty, dtype == torch.float8_e4m3fn
    center, v_max = new((batch, heads, d), dtype=torch.float32), k.new_zeros((batch, heads, d), dtype=torch.float32)
    strides = *k.stride(), *v.stride()
    launcher(_measure_channels, (math.ceil(tokens / SPAN) * batch * heads,))(
        k, v, center, v_max.view(torch.int32), *strides, heads, tokens,
        D=d, SPAN=SPAN, CHUNK=CHUNK, CENTER_CHUNKS=CENTER_CHUNKS, num_warps=4,
    )  # fmt: skip
    packed_k, k_scale = (
        new((batch, heads, n_tiles, tile, d), dtype=torch.int8),
        new((batch, heads, n_tiles), dtype=torch.float32),
    )
    packed_v = new((batch, heads, n_tiles, *((d, tile) if transpose else (tile, d))), dtype=dtype)
    index, of_head = order_tensors(orders, k)
    launcher(_pack, (n_tiles * batch * heads,))(
        k, v, index, of_head, center, v_max, packed_k, k_scale, packed_v, *strides, heads, tokens, n_tiles,
        D=d, TILE=tile, REORDER=orders is not None, INT8_TOP=INT8_TOP, VALUE_TOP=VALUE_TOP[dtype],
        TRANSPOSE=transpose, num_warps=4,
    )  # fmt: skip
    return Packed(packed_k, k_scale, center, packed_v, v_max, tile)
