"""Reordering and pooling in Triton: each token is read once, every level of the pyramid written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SPAN = 128
NUM_WARPS = 8


@triton.jit
def _gather_pool(
    x_ptr, index_ptr, rows_ptr,
    stride_b, stride_h, stride, stride_d,
    heads, n_tokens, rows_a_head,
    D: tl.constexpr, SPAN: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, REORDER: tl.constexpr,
):  # fmt: skip
    """Rows of the levels ``2 ** FIRST`` to ``2 ** LAST`` over one span of tokens of one head."""
    n_spans = tl.cdiv(n_tokens, SPAN)
    span = tl.program_id(0) % n_spans
    head = tl.program_id(0) // n_spans
    position = span * SPAN + tl.arange(0, SPAN)
    d = tl.arange(0, D)
    inside = position < n_tokens
    token = tl.load(index_ptr + position, mask=inside, other=0) if REORDER else position.to(tl.int64)
    x_ptr += (head // heads).to(tl.int64) * stride_b + (head % heads).to(tl.int64) * stride_h
    x_at = x_ptr + token[:, None] * stride + d[None, :] * stride_d
    sums = tl.load(x_at, mask=inside[:, None], other=0.0).to(tl.float32)
    rows_ptr += head.to(tl.int64) * rows_a_head * D
    for log_level in tl.static_range(0, LAST + 1):
        if log_level > 0:
            sums = tl.sum(tl.reshape(sums, (SPAN >> log_level, 2, D)), 1)
        if log_level >= FIRST:
            n_rows = (n_tokens + (1 << log_level) - 1) >> log_level
            row = span * (SPAN >> log_level) + tl.arange(0, SPAN >> log_level)
            count = tl.minimum(n_tokens - (row << log_level), 1 << log_level)
            mean = sums / tl.maximum(count, 1).to(tl.float32)[:, None]
            at = rows_ptr + row.to(tl.int64)[:, None] * D + d[None, :]
            tl.store(at, mean.to(rows_ptr.dtype.element_ty), mask=(row < n_rows)[:, None])
            rows_ptr += n_rows.to(tl.int64) * D


def gather_triton(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``x[:, :, index]``, contiguous, from ``[B, H, L, D]`` of any strides; D is a power of two."""
    return _run(x, index, len(index), 0, 0)


def pool_triton(x: torch.Tensor, max_level: int) -> torch.Tensor:
    """Pooled rows of the levels 2, 4 ... ``max_level`` (128 at most), level after level.

    Args:
        x: ``[B, H, L, D]``, any strides; D is a power of two.

    Returns:
        ``[B, H, rows, D]``, contiguous, in the dtype of x.
    """
    return _run(x, None, x.shape[2], 1, max_level.bit_length() - 1)


def _run(x: torch.Tensor, index: torch.Tensor | None, tokens: int, first: int, last: int) -> torch.Tensor:
    batch, heads, _, d = x.shape
    n_rows = sum(triton.cdiv(tokens, 1 << level) for level in range(first, last + 1))
    rows = torch.empty((batch, heads, n_rows, d), dtype=x.dtype, device=x.device)
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(x):
        _gather_pool[(triton.cdiv(tokens, SPAN) * batch * heads,)](
            x, x if index is None else index, rows, *x.stride(), heads, tokens, n_rows,
            D=d, SPAN=SPAN, FIRST=first, LAST=last, REORDER=index is not None, num_warps=NUM_WARPS,
        )  # fmt: skip
    return rows
