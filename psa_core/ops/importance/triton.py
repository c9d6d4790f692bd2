"""Sampled-max importance in Triton: two passes over the sampled keys, nothing but block maxima written."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ...importance import SAMPLE_STRIDE
from ..launch import IMPORTANCE_LAUNCH
from ..pyramid.triton import gather_triton

LOG2_E = 1.4426950408889634


@triton.jit
def _logits(q, k_ptr, start, n_samples, scale, TILE_N: tl.constexpr, D: tl.constexpr):
    """Base 2 logits of a tile of queries against the keys ``start`` onward; -inf past the last."""
    slot = start + tl.arange(0, TILE_N)
    real = slot < n_samples
    d = tl.arange(0, D)
    k = tl.load(k_ptr + slot[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    return tl.where(real[None, :], tl.dot(q, tl.trans(k)) * scale, float("-inf"))


@triton.jit
def _sampled_max(
    q_ptr, k_ptr, scores_ptr,
    q_samples, k_samples, q_blocks, k_blocks, scale,
    D: tl.constexpr, PER_M: tl.constexpr, PER_N: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr,
):  # fmt: skip
    """Scores of the query blocks in one tile of sampled queries; PER_M and PER_N are samples a block."""
    n_tiles = tl.cdiv(q_samples, TILE_M)
    tile = tl.program_id(0) % n_tiles
    head = (tl.program_id(0) // n_tiles).to(tl.int64)
    d = tl.arange(0, D)
    slot = tile * TILE_M + tl.arange(0, TILE_M)
    inside = slot < q_samples
    q_ptr += head * q_samples * D
    k_ptr += head * k_samples * D
    q = tl.load(q_ptr + slot[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)

    row_max = tl.full([TILE_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([TILE_M], tl.float32)
    for start in range(0, k_samples, TILE_N):
        logits = _logits(q, k_ptr, start, k_samples, scale, TILE_N, D)
        new_max = tl.maximum(row_max, tl.max(logits, 1))
        row_sum = row_sum * tl.exp2(row_max - new_max) + tl.sum(tl.exp2(logits - new_max[:, None]), 1)
        row_max = new_max
    # Rows past the last sample must not win a maximum.
    log_sum = tl.where(inside, row_max + tl.log2(row_sum), float("inf"))

    M_BLOCKS: tl.constexpr = TILE_M // PER_M
    N_BLOCKS: tl.constexpr = TILE_N // PER_N
    i = tile * M_BLOCKS + tl.arange(0, M_BLOCKS)
    scores_ptr += head * q_blocks * k_blocks
    for start in range(0, k_samples, TILE_N):
        logits = _logits(q, k_ptr, start, k_samples, scale, TILE_N, D)
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
    # Side by side, the samples that every tile reads again come in long rows.
    q, k = gather_triton(q, q_sample), gather_triton(k, k_sample)
    tile_m, tile_n, num_warps, num_stages = IMPORTANCE_LAUNCH
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(q):
        _sampled_max[(triton.cdiv(len(q_sample), tile_m) * batch * heads,)](
            q, k, scores, len(q_sample), len(k_sample), q_blocks, k_blocks, d**-0.5 * LOG2_E,
            D=d, PER_M=block_m // SAMPLE_STRIDE, PER_N=block_n // SAMPLE_STRIDE,
            TILE_M=tile_m, TILE_N=tile_n, num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip
    return scores
