"""The cosine cap in Triton: one launch, keys read in the order of their head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from ..compiling import launcher
from ..current_device import on_device_of_first
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start


@triton.jit
def _keys(
    k_ptr, index_ptr, position, real, stride, stride_d, D: tl.constexpr, REORDER: tl.constexpr
):  # fmt: skip
    """Keys at these positions of the reordered sequence, in float32."""
    d = tl.arange(0, D)
    token = tl.load(index_ptr + position, mask=real, other=0) if REORDER else position.to(tl.int64)
    k = tl.load(k_ptr + token[:, None] * stride + d[None, :] * stride_d, mask=real[:, None], other=0.0)
    return k.to(tl.float32)


@triton.jit
def _similarity(
    k_ptr, index_ptr, start, stride, stride_d, n_tokens,
    D: tl.constexpr, LEVEL: tl.constexpr, BLOCK_N: tl.constexpr, REORDER: tl.constexpr,
):  # fmt: skip
    """Mean cosine similarity of the whole pairs ``(0, LEVEL - 1), (LEVEL, 2 * LEVEL - 1) ...``; -inf without one."""
    TINY: tl.constexpr = 1e-8  # as torch.nn.functional.cosine_similarity guards zero vectors
    first = start + tl.arange(0, BLOCK_N // LEVEL) * LEVEL
    last = first + LEVEL - 1
    real = last < n_tokens
    a = _keys(k_ptr, index_ptr, first, real, stride, stride_d, D, REORDER)
    b = _keys(k_ptr, index_ptr, last, real, stride, stride_d, D, REORDER)
    norms = tl.maximum(tl.sqrt(tl.sum(a * a, 1)), TINY) * tl.maximum(tl.sqrt(tl.sum(b * b, 1)), TINY)
    pairs = tl.minimum(n_tokens - start, BLOCK_N) // LEVEL
    mean = tl.sum(tl.sum(a * b, 1) / norms) / tl.maximum(pairs, 1)
    return tl.where(pairs > 0, mean, float("-inf"))


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(do_not_specialize=["heads", "n_tokens"])
def _similarity_cap(
    k_ptr, index_ptr, of_head_ptr, cap_ptr, stride_b, stride_h, stride, stride_d, heads, n_tokens, x2, x4, x8,
    D: tl.constexpr, BLOCK_N: tl.constexpr, REORDER: tl.constexpr,
):  # fmt: skip
    """The cap of one key block of one head. The coarser levels find its keys in the cache."""
    k_blocks = tl.cdiv(n_tokens, BLOCK_N)
    start = tl.program_id(0) % k_blocks * BLOCK_N
    head = tl.program_id(0) // k_blocks
    k_ptr += (head // heads).to(tl.int64) * stride_b + (head % heads).to(tl.int64) * stride_h
    if REORDER:
        index_ptr += order_start(of_head_ptr, head, n_tokens)
    cap = tl.full([], 1, tl.int32)
    for log_level in tl.static_range(1, 4):
        threshold = x2 if log_level == 1 else (x4 if log_level == 2 else x8)
        similarity = _similarity(
            k_ptr, index_ptr, start, stride, stride_d, n_tokens, D, 1 << log_level, BLOCK_N, REORDER
        )  # fmt: skip
        cap = tl.where(similarity > threshold, 1 << log_level, cap)
    tl.store(cap_ptr + tl.program_id(0), cap.to(tl.uint8))


@on_device_of_first
def similarity_cap_triton(
    k: torch.Tensor, block_n: int, thresholds: Mapping[int, float], orders: Orders | None = None
) -> torch.Tensor:
    """The coarsest level of every key block; arguments and result as in the oracle.

    Args:
        k: any strides; D is 64 or 128.
        orders: blocks of a head are cut from its keys in its order. None for the order that they have.
    """
    batch, heads, tokens, d = k.shape
    k_blocks = triton.cdiv(tokens, block_n)
    cap = torch.empty((batch, heads, 1, k_blocks), dtype=torch.uint8, device=k.device)
    index, of_head = order_tensors(orders, k)
    launcher(_similarity_cap, (k_blocks * batch * heads,))(
        k, index, of_head, cap, *k.stride(), heads, tokens,
        thresholds[2], thresholds[4], thresholds[8],
        D=d, BLOCK_N=block_n, REORDER=orders is not None, num_warps=4,
    )  # fmt: skip
    return cap
