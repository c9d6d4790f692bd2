"""Sampled-max importance in Triton: two passes over the sampled keys, nothing but block maxima written."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

LOG2_E = 1.4426950408889634
_TILE = {"TILE_M": 128, "TILE_N": 128}


@triton.jit
def _sampled_logits(
    q, k_ptr, k_stride, k_stride_d, sample_ptr, start, n_samples, scale, TILE_N: tl.constexpr, D: tl.constexpr
):
    """Base 2 logits of a tile of queries against sampled keys ``start`` onward; -inf past the last."""
    slot = start + tl.arange(0, TILE_N)
    real = slot < n_samples
    row = tl.load(sample_ptr + slot, mask=real, other=0)
    d = tl.arange(0, D)
    k = tl.load(k_ptr + row[:, None] * k_stride + d[None, :] * k_stride_d, mask=real[:, None], other=0.0)
    return tl.where(real[None, :], tl.dot(q, tl.trans(k)) * scale, float("-inf"))


@triton.jit
def _sampled_max(
    q_ptr, k_ptr, q_sample_ptr, k_sample_ptr, scores_ptr,
    q_stride_b, q_stride_h, q_stride, q_stride_d,
    k_stride_b, k_stride_h, k_stride, k_stride_d,
    heads, q_samples, k_samples, q_blocks, k_blocks, scale,
    D: tl.constexpr, PER_M: tl.constexpr, PER_N: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr,
):  # fmt: skip
    """Scores of the query blocks in one tile of sampled queries; PER_M and PER_N are samples a block."""
    n_tiles = tl.cdiv(q_samples, TILE_M)
    tile = tl.program_id(0) % n_tiles
    head = tl.program_id(0) // n_tiles
    b = (head // heads).to(tl.int64)
    h = (head % heads).to(tl.int64)
    d = tl.arange(0, D)
    slot = tile * TILE_M + tl.arange(0, TILE_M)
    inside = slot < q_samples
    row = tl.load(q_sample_ptr + slot, mask=inside, other=0)
    q_at = q_ptr + b * q_stride_b + h * q_stride_h + row[:, None] * q_stride + d[None, :] * q_stride_d
    q = tl.load(q_at, mask=inside[:, None], other=0.0)
    k_ptr += b * k_stride_b + h * k_stride_h

    row_max = tl.full([TILE_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([TILE_M], tl.float32)
    for start in range(0, k_samples, TILE_N):
        logits = _sampled_logits(q, k_ptr, k_stride, k_stride_d, k_sample_ptr, start, k_samples, scale, TILE_N, D)
        new_max = tl.maximum(row_max, tl.max(logits, 1))
        row_sum = row_sum * tl.exp2(row_max - new_max) + tl.sum(tl.exp2(logits - new_max[:, None]), 1)
        row_max = new_max
    # Rows past the last sample must not win a maximum.
    log_sum = tl.where(inside, row_max + tl.log2(row_sum), float("inf"))

    M_BLOCKS: tl.constexpr = TILE_M // PER_M
    N_BLOCKS: tl.constexpr = TILE_N // PER_N
    i = tile * M_BLOCKS + tl.arange(0, M_BLOCKS)
    scores_ptr += head.to(tl.int64) * q_blocks * k_blocks
    for start in range(0, k_samples, TILE_N):
        logits = _sampled_logits(q, k_ptr, k_stride, k_stride_d, k_sample_ptr, start, k_samples, scale, TILE_N, D)
        log_weights = tl.reshape(logits - log_sum[:, None], (M_BLOCKS, PER_M, N_BLOCKS, PER_N))
        score = tl.exp2(tl.max(tl.max(log_weights, 3), 1))
        j = start // PER_N + tl.arange(0, N_BLOCKS)
        at = scores_ptr + i.to(tl.int64)[:, None] * k_blocks + j[None, :]
        tl.store(at, score, mask=(i < q_blocks)[:, None] & (j < k_blocks)[None, :])


def sampled_max_triton(
    q: torch.Tensor, k: torch.Tensor, q_sample: torch.Tensor, k_sample: torch.Tensor, block_m: int, block_n: int
) -> torch.Tensor:
    """Block maxima of the softmax over sampled keys; arguments as of the oracle, rows not yet divided by their sums.

    Returns:
        float32 ``[B, H, q_blocks, k_blocks]``.
    """
    batch, heads, q_tokens, d = q.shape
    q_blocks, k_blocks = triton.cdiv(q_tokens, block_m), triton.cdiv(k.shape[2], block_n)
    scores = torch.empty((batch, heads, q_blocks, k_blocks), dtype=torch.float32, device=q.device)
    stride = 4
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(q):
        _sampled_max[(triton.cdiv(len(q_sample), _TILE["TILE_M"]) * batch * heads,)](
            q, k, q_sample, k_sample, scores, *q.stride(), *k.stride(),
            heads, len(q_sample), len(k_sample), q_blocks, k_blocks, d**-0.5 * LOG2_E,
            D=d, PER_M=block_m // stride, PER_N=block_n // stride, **_TILE, num_warps=8, num_stages=2,
        )  # fmt: skip
    return scores
