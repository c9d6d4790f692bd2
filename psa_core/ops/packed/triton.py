"""Packing in Triton: what channels need is measured first; then tokens are read once, and all written from them."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..compiling import launcher
from ..current_device import on_device_of_first
from ..int8.triton import INT8_TOP, magnitude, to_int8
from ..pyramid.rows import rows_of_levels
from ..pyramid.triton import GROUP, GROUPS, every_head, pool_span, warps
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start
from .rows import VALUE_TOP, Packed, PackedRows

# Tokens that one program measures, those of them it reads at a time, and so many times that number make the center.
SPAN = 512
CHUNK = 64
CENTER_CHUNKS = 16


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
        largest = tl.maximum(largest, tl.max(magnitude(v), 0))
    tl.atomic_max(v_max_ptr + channels, largest)
    if span == 0:
        step = tl.cdiv(n_tokens, CHUNK * CENTER_CHUNKS)
        k_at = k_ptr + b * k_stride_b + head.to(tl.int64) * k_stride_h + d[None, :] * k_stride_d
        sums = tl.zeros([D], tl.float32)
        for start in range(0, CHUNK * CENTER_CHUNKS, CHUNK):
            token = ((start + slot) * step).to(tl.int64)[:, None]
            sums += tl.sum(tl.load(k_at + token * k_stride, mask=token < n_tokens, other=0.0).to(tl.float32), 0)
        tl.store(center_ptr + channels, sums / tl.cdiv(n_tokens, step).to(tl.float32))


@triton.jit
def _tokens(x_at, index_ptr, tile, n_tokens, stride, TILE: tl.constexpr, REORDER: tl.constexpr):
    """The tokens of a tile, float32 ``[TILE, D]``; the last one in place of those past it."""
    position = tl.minimum(tile * TILE + tl.arange(0, TILE), n_tokens - 1)
    token = tl.load(index_ptr + position) if REORDER else position.to(tl.int64)
    return tl.load(x_at + token[:, None] * stride).to(tl.float32)


@triton.jit
def _pack_keys(k, center, out_ptr, scale_ptr):
    """Write one tile of keys ``[TILE, D]`` and its scale."""
    TILE: tl.constexpr = k.shape[0]
    D: tl.constexpr = k.shape[1]
    k -= center
    largest = tl.max(magnitude(k)).to(tl.float32, bitcast=True)
    tl.store(scale_ptr, largest / INT8_TOP)
    tl.store(out_ptr + tl.arange(0, TILE)[:, None] * D + tl.arange(0, D)[None, :], to_int8(k, largest))


@triton.jit
def _pack_values(v, factor, out_ptr, TRANSPOSE: tl.constexpr):
    """Write one tile of values ``[TILE, D]``."""
    TILE: tl.constexpr = v.shape[0]
    D: tl.constexpr = v.shape[1]
    v = (v * factor).to(out_ptr.dtype.element_ty)
    slot = tl.arange(0, TILE)
    d = tl.arange(0, D)[None, :]
    if TRANSPOSE:
        # In the order that the operand of a matrix instruction has them (`Packed.v`).
        place = slot // 16 * 16 + slot // 2 % 4 * 4 + slot // 8 % 2 * 2 + slot % 2
        tl.store(out_ptr + d * TILE + place[:, None], v)
    else:
        tl.store(out_ptr + slot[:, None] * D + d, v)


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(do_not_specialize=["heads", "n_tokens", "n_tiles", "n_rows"])
def _pack(
    k_ptr, v_ptr, index_ptr, of_head_ptr, read_ptr, center_ptr, v_max_ptr, k_out_ptr, k_scale_ptr, v_out_ptr,
    k_rows_ptr, row_scale_ptr, v_rows_ptr,
    k_stride_b, k_stride_h, k_stride, k_stride_d, v_stride_b, v_stride_h, v_stride, v_stride_d,
    heads, n_tokens, n_tiles, n_rows,
    D: tl.constexpr, TILE: tl.constexpr, GROUPS: tl.constexpr, LAST: tl.constexpr, REORDER: tl.constexpr,
    VALUE_TOP: tl.constexpr, TRANSPOSE: tl.constexpr,
):  # fmt: skip
    """One span of tokens of one head, of keys in the first plane of the grid and of values in the second.

    Tiles follow pooled rows, and find in the cache what those have read.
    """
    TILES: tl.constexpr = GROUPS * 8 // TILE
    n_spans = tl.cdiv(n_tokens, GROUPS * 8)
    # Neighbouring programs take neighbouring heads, which lie side by side in the memory of most models.
    h = tl.program_id(0) % heads
    span = tl.program_id(0) // heads % n_spans
    b = (tl.program_id(0) // heads // n_spans).to(tl.int64)
    head = b * heads + h
    if REORDER:
        index_ptr += order_start(of_head_ptr, head, n_tokens)
    pooled = tl.load(read_ptr + head) != 0
    d = tl.arange(0, D)[None, :]
    first_tile = head * n_tiles
    if tl.program_id(1) == 0:
        k_ptr += b * k_stride_b + h.to(tl.int64) * k_stride_h
        center = tl.load(center_ptr + head * D + d)
        if LAST > 0 and pooled:
            pool_span(
                k_ptr, index_ptr, k_rows_ptr + head * n_rows * D, row_scale_ptr + head * n_rows,
                k_stride, k_stride_d, span, n_tokens, center, 1.0, D, GROUPS, 1, LAST, REORDER,
            )  # fmt: skip
        for i in tl.static_range(TILES):
            tile = span * TILES + i
            if tile < n_tiles:
                k = _tokens(k_ptr + d * k_stride_d, index_ptr, tile, n_tokens, k_stride, TILE, REORDER)
                at = first_tile + tile
                _pack_keys(k, center, k_out_ptr + at * (TILE * D), k_scale_ptr + at)
    else:
        v_ptr += b * v_stride_b + h.to(tl.int64) * v_stride_h
        v_max = tl.load(v_max_ptr + head * D + d)
        if LAST > 0 and pooled:
            pool_span(
                v_ptr, index_ptr, v_rows_ptr + head * n_rows * D, v_rows_ptr, v_stride, v_stride_d, span, n_tokens,
                0.0, tl.where(v_max > 0, 1 / v_max, 0.0), D, GROUPS, 1, LAST, REORDER,
            )  # fmt: skip
        factor = tl.where(v_max > 0, VALUE_TOP / v_max, 0.0)
        for i in tl.static_range(TILES):
            tile = span * TILES + i
            if tile < n_tiles:
                v = _tokens(v_ptr + d * v_stride_d, index_ptr, tile, n_tokens, v_stride, TILE, REORDER)
                _pack_values(v, factor, v_out_ptr + (first_tile + tile) * (TILE * D), TRANSPOSE)


@on_device_of_first
def pack_triton(
    k: torch.Tensor,
    v: torch.Tensor,
    block_n: int,
    tile: int,
    dtype: torch.dtype,
    max_level: int = 1,
    orders: Orders | None = None,
    read: torch.Tensor | None = None,
) -> Packed:
    """Pack keys and values.

    Args:
        k, v: ``[B, H, L, D]``, float16 or bfloat16, any strides; D is 64 or 128.
        block_n: tokens of a key block, whose multiple the packed tokens are.
        tile: tokens that share a scale, a power of two that divides ``block_n``.
        dtype: of the values of level 1: float8_e4m3fn or float16.
        max_level: a power of two up to 128; rows of every level from 2 up to it are packed. 1 for none.
        orders: in which the tokens of each head are packed. None for the order they have.
        read: uint8 ``[B, H]``, zero for heads whose pooled rows are left unwritten; None for none.
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
    packed_k = new((batch, heads, n_tiles, tile, d), dtype=torch.int8)
    k_scale = new((batch, heads, n_tiles), dtype=torch.float32)
    packed_v = new((batch, heads, n_tiles, *((d, tile) if transpose else (tile, d))), dtype=dtype)
    n_rows = rows_of_levels(tokens, max_level)
    rows = PackedRows(
        new((batch, heads, n_rows, d), dtype=torch.int8), new((batch, heads, n_rows), dtype=torch.float32),
        new((batch, heads, n_rows, d), dtype=torch.float16), max_level,
    )  # fmt: skip
    index, of_head = order_tensors(orders, k)
    read = every_head(batch, heads, k.device) if read is None else read.contiguous()
    launcher(_pack, (math.ceil(tokens / (GROUP * GROUPS)) * batch * heads, 2))(
        k, v, index, of_head, read, center, v_max, packed_k, k_scale, packed_v, *rows[:3],
        *strides, heads, tokens, n_tiles, n_rows,
        D=d, TILE=tile, GROUPS=GROUPS, LAST=max_level.bit_length() - 1, REORDER=orders is not None,
        VALUE_TOP=VALUE_TOP[dtype], TRANSPOSE=transpose, num_warps=pack_warps(d),
    )  # fmt: skip
    return Packed(packed_k, k_scale, center, packed_v, v_max, rows, tile)


def pack_warps(d: int) -> int:
    """Twice as many as pooling alone has: half of a token's channels are as many as registers have room for."""
    return 2 * warps(d)
