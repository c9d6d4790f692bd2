"""Reordering and pooling in Triton: each token is read once, in the order of its head, and every row written once."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..compiling import launcher
from ..current_device import on_device_of_first
from ..device_cache import device_cache
from ..int8.triton import rows_in_int8
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start

# Tokens that one thread adds up by itself (a group), and groups of a program.
GROUP = 8
GROUPS = 16


@triton.jit
def _token(x_at, index_ptr, position, n_tokens, stride, REORDER: tl.constexpr):
    """One token of each group, float32 ``[groups, D]``; zeros past the last."""
    inside = position < n_tokens
    token = tl.load(index_ptr + position, mask=inside, other=0) if REORDER else position.to(tl.int64)
    return tl.load(x_at + token[:, None] * stride, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def _store_mean(rows_at, scales_at, row, sums, center, factor, n_tokens, LOG_LEVEL: tl.constexpr):
    """Write rows of one level from the sums of their tokens ``[rows, D]``."""
    count = tl.minimum(n_tokens - (row << LOG_LEVEL), 1 << LOG_LEVEL)
    share = 1.0 / tl.maximum(count, 1).to(tl.float32)
    D: tl.constexpr = sums.shape[1]
    mean = (sums * share[:, None] - center) * factor
    if rows_at.dtype.element_ty == tl.int8:
        mean, scale = rows_in_int8(mean)
        tl.store(scales_at + row, scale, mask=count > 0)
    mean = mean.to(rows_at.dtype.element_ty)
    tl.store(rows_at + row.to(tl.int64)[:, None] * D, mean, mask=(count > 0)[:, None])


@triton.jit
def _store_coarse_means(rows_at, scales_at, span, sums, center, factor, n_tokens, LOG_LEVEL: tl.constexpr):
    """Write rows of a level past 8 from the sums of groups of 8 tokens ``[groups, D]``."""
    GROUPS: tl.constexpr = sums.shape[0]
    D: tl.constexpr = sums.shape[1]
    ROWS: tl.constexpr = GROUPS * 8 >> LOG_LEVEL
    row = span * ROWS + tl.arange(0, ROWS)
    sums = tl.sum(tl.reshape(sums, (ROWS, GROUPS // ROWS, D)), 1)
    _store_mean(rows_at, scales_at, row, sums, center, factor, n_tokens, LOG_LEVEL)


@triton.jit
def pool_span(
    x_ptr, index_ptr, rows_ptr, scales_at, stride, stride_d, span, n_tokens, center, factor,
    D: tl.constexpr, GROUPS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, REORDER: tl.constexpr,
):  # fmt: skip
    """Rows of the levels ``2 ** FIRST`` to ``2 ** LAST`` over one span of tokens of one head.

    A thread adds neighbouring tokens up on its own, so levels up to 8 need no exchange between threads.

    Args:
        scales_at: float32, where rows that go out as INT8 have a scale each; for others anything.
        center, factor: what a mean is less of, and then multiplied by: numbers or ``[1, D]``.
    """
    d = tl.arange(0, D)[None, :]
    group = span * GROUPS + tl.arange(0, GROUPS)
    x_at = x_ptr + d * stride_d
    rows_at = rows_ptr + d
    # All loads are issued before the first store.
    pair0 = _token(x_at, index_ptr, group * 8, n_tokens, stride, REORDER)
    pair0 += _token(x_at, index_ptr, group * 8 + 1, n_tokens, stride, REORDER)
    pair1 = _token(x_at, index_ptr, group * 8 + 2, n_tokens, stride, REORDER)
    pair1 += _token(x_at, index_ptr, group * 8 + 3, n_tokens, stride, REORDER)
    pair2 = _token(x_at, index_ptr, group * 8 + 4, n_tokens, stride, REORDER)
    pair2 += _token(x_at, index_ptr, group * 8 + 5, n_tokens, stride, REORDER)
    pair3 = _token(x_at, index_ptr, group * 8 + 6, n_tokens, stride, REORDER)
    pair3 += _token(x_at, index_ptr, group * 8 + 7, n_tokens, stride, REORDER)
    if FIRST <= 1:
        _store_mean(rows_at, scales_at, group * 4, pair0, center, factor, n_tokens, 1)
        _store_mean(rows_at, scales_at, group * 4 + 1, pair1, center, factor, n_tokens, 1)
        _store_mean(rows_at, scales_at, group * 4 + 2, pair2, center, factor, n_tokens, 1)
        _store_mean(rows_at, scales_at, group * 4 + 3, pair3, center, factor, n_tokens, 1)
        rows_at += ((n_tokens + 1) >> 1).to(tl.int64) * D
        scales_at += (n_tokens + 1) >> 1
    if FIRST <= 2 and LAST >= 2:
        _store_mean(rows_at, scales_at, group * 2, pair0 + pair1, center, factor, n_tokens, 2)
        _store_mean(rows_at, scales_at, group * 2 + 1, pair2 + pair3, center, factor, n_tokens, 2)
        rows_at += ((n_tokens + 3) >> 2).to(tl.int64) * D
        scales_at += (n_tokens + 3) >> 2
    if LAST >= 3:
        sums = (pair0 + pair1) + (pair2 + pair3)
        if FIRST <= 3:
            _store_mean(rows_at, scales_at, group, sums, center, factor, n_tokens, 3)
            rows_at += ((n_tokens + 7) >> 3).to(tl.int64) * D
            scales_at += (n_tokens + 7) >> 3
        for log_level in tl.static_range(4, LAST + 1):
            if log_level >= FIRST:
                _store_coarse_means(rows_at, scales_at, span, sums, center, factor, n_tokens, log_level)
                rows = (n_tokens + (1 << log_level) - 1) >> log_level
                rows_at += rows.to(tl.int64) * D
                scales_at += rows


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(do_not_specialize=["heads", "n_tokens", "rows_a_head"])
def _pool(
    x_ptr, y_ptr, index_ptr, of_head_ptr, read_ptr, x_rows_ptr, y_rows_ptr,
    x_stride_b, x_stride_h, x_stride, x_stride_d,
    y_stride_b, y_stride_h, y_stride, y_stride_d,
    heads, n_tokens, rows_a_head,
    D: tl.constexpr, GROUPS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, REORDER: tl.constexpr,
):  # fmt: skip
    """One span of tokens of one head that is read, of x in the first plane of the grid and of y in the second."""
    n_spans = tl.cdiv(n_tokens, GROUPS * 8)
    # Neighbouring programs take neighbouring heads, which lie side by side in the memory of most models.
    head = tl.program_id(0) % heads
    span = tl.program_id(0) // heads % n_spans
    b = (tl.program_id(0) // heads // n_spans).to(tl.int64)
    if tl.load(read_ptr + b * heads + head) == 0:
        return
    if REORDER:
        index_ptr += order_start(of_head_ptr, b * heads + head, n_tokens)
    first_row = (b * heads + head) * rows_a_head * D
    if tl.program_id(1) == 0:
        pool_span(
            x_ptr + b * x_stride_b + head.to(tl.int64) * x_stride_h, index_ptr, x_rows_ptr + first_row,
            x_rows_ptr, x_stride, x_stride_d, span, n_tokens, 0.0, 1.0, D, GROUPS, FIRST, LAST, REORDER,
        )  # fmt: skip
    else:
        pool_span(
            y_ptr + b * y_stride_b + head.to(tl.int64) * y_stride_h, index_ptr, y_rows_ptr + first_row,
            y_rows_ptr, y_stride, y_stride_d, span, n_tokens, 0.0, 1.0, D, GROUPS, FIRST, LAST, REORDER,
        )  # fmt: skip


@triton.jit(do_not_specialize=["heads", "n_tokens"])
def _gather(
    x_ptr, index_ptr, of_head_ptr, out_ptr, stride_b, stride_h, stride, stride_d, heads, n_tokens,
    D: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """One span of the tokens taken, of one head."""
    n_spans = tl.cdiv(n_tokens, SPAN)
    head = tl.program_id(0) % heads
    span = tl.program_id(0) // heads % n_spans
    b = (tl.program_id(0) // heads // n_spans).to(tl.int64)
    d = tl.arange(0, D)[None, :]
    position = span * SPAN + tl.arange(0, SPAN)
    inside = position < n_tokens
    index_ptr += order_start(of_head_ptr, b * heads + head, n_tokens)
    token = tl.load(index_ptr + position, mask=inside, other=0)
    x_at = x_ptr + b * stride_b + head.to(tl.int64) * stride_h + token[:, None] * stride + d * stride_d
    out_at = out_ptr + (b * heads + head) * n_tokens * D + position.to(tl.int64)[:, None] * D + d
    tl.store(out_at, tl.load(x_at, mask=inside[:, None]), mask=inside[:, None])


@on_device_of_first
def gather_triton(x: torch.Tensor, orders: Orders) -> torch.Tensor:
    """The tokens of each head in its order, or a part of them, contiguous, from ``[B, H, L, D]`` of any strides.

    D is 64 or 128.
    """
    batch, heads, _, d = x.shape
    index, of_head = order_tensors(orders, x)
    taken = index.shape[1]
    out = torch.empty((batch, heads, taken, d), dtype=x.dtype, device=x.device)
    span = GROUP * GROUPS
    launcher(_gather, (triton.cdiv(taken, span) * batch * heads,))(
        x, index, of_head, out, *x.stride(), heads, taken, D=d, SPAN=span, num_warps=8
    )
    return out


@on_device_of_first
def pool_triton(
    k: torch.Tensor, v: torch.Tensor, max_level: int, orders: Orders | None = None, read: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled rows of the levels 2, 4 ... ``max_level`` (128 at most), level after level, of keys and values.

    Args:
        k, v: ``[B, H, L, D]``, any strides, one dtype; D is 64 or 128.
        orders: in which the tokens of each head are pooled. None for the order they have.
        read: uint8 ``[B, H]``, zero for heads whose rows are left unwritten; None for none.

    Returns:
        Two of ``[B, H, rows, D]``, contiguous, in the dtype of k.
    """
    k_rows, v_rows = _run((k, v), orders, 1, max_level.bit_length() - 1, k.dtype, read)
    return k_rows, v_rows


@on_device_of_first
def pool_keys_triton(
    k: torch.Tensor, max_level: int, orders: Orders | None = None, read: torch.Tensor | None = None
) -> torch.Tensor:
    """Pooled rows of keys alone; arguments as of :func:`pool_triton`, but ``max_level`` may be 1, which has none."""
    if max_level == 1:
        return k.new_empty((*k.shape[:2], 0, k.shape[3]))
    return _run((k,), orders, 1, max_level.bit_length() - 1, k.dtype, read)[0]


@on_device_of_first
def block_means_triton(
    x: torch.Tensor, block: int, orders: Orders | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Mean of each block of tokens; a ragged last block averages those that exist.

    Args:
        x: ``[B, H, L, D]``, any strides; D is 64 or 128.
        block: a power of two, 8 to 128.
        orders: as in :func:`pool_triton`.
        dtype: of the means.

    Returns:
        ``[B, H, ceil(L / block), D]``, contiguous.
    """
    log_block = block.bit_length() - 1
    return _run((x,), orders, log_block, log_block, dtype)[0]


def _run(
    tensors: tuple[torch.Tensor, ...],
    orders: Orders | None,
    first: int,
    last: int,
    dtype: torch.dtype,
    read: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    x, y = tensors[0], tensors[-1]
    batch, heads, tokens, d = x.shape
    n_rows = sum(math.ceil(tokens / (1 << level)) for level in range(first, last + 1))
    index, of_head = order_tensors(orders, x)
    read = every_head(batch, heads, x.device) if read is None else read.contiguous()
    rows = [torch.empty((batch, heads, n_rows, d), dtype=dtype, device=x.device) for _ in tensors]
    launcher(_pool, (math.ceil(tokens / (GROUP * GROUPS)) * batch * heads, len(tensors)))(
        x, y, index, of_head, read, rows[0], rows[-1], *x.stride(), *y.stride(), heads, tokens, n_rows,
        D=d, GROUPS=GROUPS, FIRST=first, LAST=last, REORDER=orders is not None, num_warps=warps(d),
    )  # fmt: skip
    return rows


@device_cache(maxsize=16)
def every_head(batch: int, heads: int, device: torch.device) -> torch.Tensor:
    """What says that the rows of all heads are read, uint8 ``[B, H]``."""
    return torch.ones((batch, heads), dtype=torch.uint8, device=device)


def warps(d: int) -> int:
    """So many that a thread holds whole groups: the warps cover one token of each group."""
    return d // 16
