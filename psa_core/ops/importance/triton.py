"""Importance by a softmax over a part of the keys, in Triton: two passes, and a number a pair of blocks written."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..compiling import launcher
from ..current_device import on_device_of_first
from ..grouped import group_of
from ..launch import Launch, capability_of, importance_launch
from ..pyramid.triton import gather_triton
from ..reorder.orders import Orders, order_tensors
from ..reorder.triton import order_start
from .sampling import SAMPLE_STRIDE, SAMPLED_MAX, SAMPLED_SUM

MAX, SUM = tl.constexpr(SAMPLED_MAX), tl.constexpr(SAMPLED_SUM)
# In place of the number of one estimator for all heads.
BY_HEAD = tl.constexpr(-1)


@triton.jit
def _products(q, k_ptr, slot, D: tl.constexpr):
    """Dot products of a tile of queries with the sampled keys in these slots."""
    d = tl.arange(0, D)
    return tl.dot(q, tl.trans(tl.load(k_ptr + slot[:, None] * D + d[None, :])))


@triton.jit
def _fold(part_max, part_sum, products, scale, TILE_M: tl.constexpr, TILE_N: tl.constexpr, PARTS: tl.constexpr):
    """One step of an online softmax (base 2) whose maxima and sums are kept apart for every ``PARTS``-th column.

    One thread of a matrix instruction holds such columns, so that threads exchange nothing before the end of the row.
    """
    columns = tl.reshape(products, (TILE_M, TILE_N // PARTS, PARTS))
    new_max = tl.maximum(part_max, tl.max(columns, 1) * scale)
    weights = tl.exp2(columns * scale - new_max[:, None, :])
    return new_max, part_sum * tl.exp2(part_max - new_max) + tl.sum(weights, 1)


@triton.jit
def _log_sum(
    q, k_ptr, k_samples, seen, seen_by_all, scale,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, D: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Base 2 logarithm of the softmax denominator of each query in a tile; 0 for one that sees no key.

    With CAUSAL a query sees its first ``seen`` keys, and k_samples are those that some query of the tile sees.
    """
    PARTS: tl.constexpr = 8
    LOWEST: tl.constexpr = -1e38  # -inf less -inf would be NaN where a part has met no key
    part_max = tl.full([TILE_M, PARTS], LOWEST, tl.float32)
    part_sum = tl.zeros([TILE_M, PARTS], tl.float32)
    column = tl.arange(0, TILE_N)
    whole = seen_by_all // TILE_N * TILE_N
    for start in range(0, whole, TILE_N):
        products = _products(q, k_ptr, start + column, D)
        part_max, part_sum = _fold(part_max, part_sum, products, scale, TILE_M, TILE_N, PARTS)
    if CAUSAL:
        for start in range(whole, k_samples, TILE_N):
            slot = start + column
            products = _products(q, k_ptr, tl.minimum(slot, k_samples - 1), D)
            products = tl.where(slot[None, :] < seen[:, None], products, float("-inf"))
            part_max, part_sum = _fold(part_max, part_sum, products, scale, TILE_M, TILE_N, PARTS)
    elif whole < k_samples:
        slot = whole + column
        products = _products(q, k_ptr, tl.minimum(slot, k_samples - 1), D)
        products = tl.where((slot < k_samples)[None, :], products, float("-inf"))
        part_max, part_sum = _fold(part_max, part_sum, products, scale, TILE_M, TILE_N, PARTS)
    row_max = tl.max(part_max, 1)
    log_sum = row_max + tl.log2(tl.sum(part_sum * tl.exp2(part_max - row_max[:, None]), 1))
    if CAUSAL:
        # -inf less -inf would be NaN where a query sees no sampled key.
        log_sum = tl.where(seen > 0, log_sum, 0.0)
    return log_sum


@triton.jit
def _score_blocks(
    q, k_ptr, log_sum, there, at, i, k_samples, seen, seen_by_all, q_blocks, k_blocks, scale,
    D: tl.constexpr, PER_M: tl.constexpr, PER_N: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    CAUSAL: tl.constexpr, ADD_UP: tl.constexpr,
):  # fmt: skip
    """The second pass: a score of each pair of blocks, the largest of its weights, or with ADD_UP their sum.

    Rows and columns of a tile are arranged so that few threads hold the samples of a block: up to 16 queries of a
    block, as many as one warp holds, follow each other, and keys of one block stand N_BLOCKS apart. Slots past the end
    repeat the last sample, which changes no maximum; in sums they count as nothing.
    """
    RUN: tl.constexpr = min(PER_M, 16)
    M_BLOCKS: tl.constexpr = TILE_M // PER_M
    N_BLOCKS: tl.constexpr = TILE_N // PER_N
    column = tl.arange(0, TILE_N)
    key = column % N_BLOCKS * PER_N + column // N_BLOCKS
    for start in range(0, k_samples, TILE_N):
        products = _products(q, k_ptr, tl.minimum(start + key, k_samples - 1), D)
        if CAUSAL and start + TILE_N > seen_by_all:
            products = tl.where((start + key)[None, :] < seen[:, None], products, float("-inf"))
        if ADD_UP:
            real = there[:, None] & (start + key < k_samples)[None, :]
            weight = tl.where(real, tl.exp2(products * scale - log_sum[:, None]), 0.0)
            weight = tl.sum(tl.reshape(weight, (TILE_M, PER_N, N_BLOCKS)), 1)
            score = tl.sum(tl.sum(tl.reshape(weight, (PER_M // RUN, M_BLOCKS, RUN, N_BLOCKS)), 0), 1)
        else:
            best = tl.max(tl.reshape(products, (TILE_M, PER_N, N_BLOCKS)), 1)
            log_weight = tl.reshape(best * scale - log_sum[:, None], (PER_M // RUN, M_BLOCKS, RUN, N_BLOCKS))
            score = tl.exp2(tl.max(tl.max(log_weight, 0), 1))
        j = start // PER_N + tl.arange(0, N_BLOCKS)
        tl.store(at + start // PER_N, score, mask=(i < q_blocks)[:, None] & (j < k_blocks)[None, :])


# Sizes change from video to video, and nothing is gained by compiling for each.
@triton.jit(do_not_specialize=["heads", "q_samples", "k_samples", "q_blocks", "k_blocks"])
def _sampled(
    q_ptr, k_ptr, sample_ptr, of_head_ptr, estimator_ptr, scores_ptr, seen_ptr,
    q_stride_b, q_stride_h, q_stride, q_stride_d,
    heads, q_samples, k_samples, q_blocks, k_blocks, scale,
    D: tl.constexpr, PER_M: tl.constexpr, PER_N: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr,
    ESTIMATOR: tl.constexpr, GROUP: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Scores of the query blocks in one tile of sampled queries; PER_M and PER_N are samples a block.

    GROUP heads share a head of keys. With CAUSAL nothing is written of blocks that no query of the tile sees.
    """
    RUN: tl.constexpr = min(PER_M, 16)
    M_BLOCKS: tl.constexpr = TILE_M // PER_M
    N_BLOCKS: tl.constexpr = TILE_N // PER_N
    n_tiles = tl.cdiv(q_samples, TILE_M)
    tile = tl.program_id(0) % n_tiles
    if CAUSAL:
        # GPUs start programs in order: those that see most come first.
        tile = n_tiles - 1 - tile
    head = (tl.program_id(0) // n_tiles).to(tl.int64)
    estimator = ESTIMATOR
    if ESTIMATOR == BY_HEAD:
        estimator = tl.load(estimator_ptr + head)
        if (estimator != MAX) & (estimator != SUM):
            return
    d = tl.arange(0, D)
    row = tl.arange(0, TILE_M)
    block = tile * M_BLOCKS + row // RUN % M_BLOCKS
    slot = block * PER_M + row // (RUN * M_BLOCKS) * RUN + row % RUN
    sample_ptr += order_start(of_head_ptr, head, q_samples)
    token = tl.load(sample_ptr + tl.minimum(slot, q_samples - 1))
    q_ptr += head // heads * q_stride_b + head % heads * q_stride_h
    q = tl.load(q_ptr + token[:, None] * q_stride + d[None, :] * q_stride_d)
    k_ptr += head // GROUP * k_samples * D
    seen, seen_by_all = k_samples, k_samples
    if CAUSAL:
        seen = tl.load(seen_ptr + tl.minimum(slot, q_samples - 1))
        seen_by_all = tl.min(seen, 0)
        k_samples = tl.max(seen, 0)

    log_sum = _log_sum(q, k_ptr, k_samples, seen, seen_by_all, scale, TILE_M, TILE_N, D, CAUSAL)

    i = tile * M_BLOCKS + tl.arange(0, M_BLOCKS)
    at = scores_ptr + (head * q_blocks + i)[:, None] * k_blocks + tl.arange(0, N_BLOCKS)[None, :]
    there = slot < q_samples
    # By head, the loop of the other estimator has no keys. Loops in two branches would each hold shared memory.
    if ESTIMATOR != SUM:
        n = tl.where(estimator == MAX, k_samples, 0)
        _score_blocks(
            q, k_ptr, log_sum, there, at, i, n, seen, seen_by_all, q_blocks, k_blocks, scale,
            D, PER_M, PER_N, TILE_M, TILE_N, CAUSAL, ADD_UP=False,
        )  # fmt: skip
    if ESTIMATOR != MAX:
        n = tl.where(estimator == SUM, k_samples, 0)
        _score_blocks(
            q, k_ptr, log_sum, there, at, i, n, seen, seen_by_all, q_blocks, k_blocks, scale,
            D, PER_M, PER_N, TILE_M, TILE_N, CAUSAL, ADD_UP=True,
        )  # fmt: skip


def sampled_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    q_sample: Orders,
    k_sample: Orders,
    block_m: int,
    block_n: int,
    estimator: int | torch.Tensor,
    seen: torch.Tensor | None = None,
    launch: Launch | None = None,
) -> torch.Tensor:
    """Block maxima, or block sums, of the softmax over sampled keys, rows not yet divided by their sums.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, Hk, Lk, D]``; any strides, D 64 or 128, Hk a divisor of H.
        q_sample, k_sample: the sampled tokens of each head in the order of its blocks, a quarter of each block.
        estimator, seen, launch: as in :func:`scores_triton`.

    Returns:
        float32 ``[B, H, q_blocks, k_blocks]``.
    """
    # Every tile reads the sampled keys again: gathered once, they are contiguous.
    sampled = gather_triton(k, k_sample)
    per_m, per_n = block_m // SAMPLE_STRIDE, block_n // SAMPLE_STRIDE
    return scores_triton(q, sampled, q_sample, per_m, per_n, estimator, seen, launch)


@on_device_of_first
def scores_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    q_sample: Orders,
    per_m: int,
    per_n: int,
    estimator: int | torch.Tensor,
    seen: torch.Tensor | None = None,
    launch: Launch | None = None,
) -> torch.Tensor:
    """Block maxima, or block sums, of the softmax of some queries over some keys, rows not yet divided by their sums.

    Args:
        q: ``[B, H, Lq, D]``, any strides, D 64 or 128.
        k: ``[B, Hk, n, D]``, contiguous: the keys, block after block. Hk divides H.
        q_sample: which queries of each head, block after block.
        per_m, per_n: queries and keys a block.
        estimator: ``SAMPLED_MAX`` or ``SAMPLED_SUM`` for all heads; or int32 ``[B, H]`` on the device, a number for
            each head: with any other than these two its scores mean nothing.
        seen: int32 ``[queries]``, how many of the keys, from the first on, each query sees; None for all.
        launch: tiles and warps, for tiles that hold whole blocks; None for those of the device.

    Returns:
        float32 ``[B, H, q_blocks, k_blocks]``.
    """
    batch, heads, _, d = q.shape
    if launch is None:
        launch = importance_launch(capability_of(q.device))
    sample, of_head = order_tensors(q_sample, q)
    q_samples, k_samples = sample.shape[1], k.shape[2]
    q_blocks, k_blocks = triton.cdiv(q_samples, per_m), triton.cdiv(k_samples, per_n)
    new = torch.empty if seen is None else torch.zeros
    scores = new((batch, heads, q_blocks, k_blocks), dtype=torch.float32, device=q.device)
    # The stand-in for numbers is not read.
    which, numbers = estimator, of_head
    if isinstance(estimator, torch.Tensor):
        which, numbers = BY_HEAD.value, estimator.contiguous()
    launcher(_sampled, (triton.cdiv(q_samples, launch.tile_m) * batch * heads,))(
        q, k, sample, of_head, numbers, scores, of_head if seen is None else seen, *q.stride(),
        heads, q_samples, k_samples, q_blocks, k_blocks, d**-0.5 * math.log2(math.e),
        D=d, PER_M=per_m, PER_N=per_n, TILE_M=launch.tile_m, TILE_N=launch.tile_n, ESTIMATOR=which,
        GROUP=group_of(q, k), CAUSAL=seen is not None,
        num_warps=launch.num_warps, num_stages=launch.num_stages,
    )  # fmt: skip
    return scores
