"""Importance: how much each key block matters to each query block. Estimators are registered by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch

Estimator = Callable[[torch.Tensor, torch.Tensor, int, int, str], torch.Tensor]

SAMPLE_STRIDE = 4
_SEED = 20512
# Sampled logits that exist at once; 256 MB in float32.
_CHUNK_NUMBERS = 1 << 26


def sampled_max(q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int, backend: str = "torch") -> torch.Tensor:
    """Largest softmax weight between sampled queries and keys of two blocks (paper, section 3.3).

    A quarter of the tokens of each block is sampled, one from each run of four; the choice depends on the length only.

    Args:
        q: ``[B, H, Lq, D]``; k: ``[B, H, Lk, D]``.
        backend: ``"triton"`` or ``"torch"``; the latter holds at most 2**26 logits at a time (or one query block's).

    Returns:
        float32 ``[B, H, q_blocks, k_blocks]``; each row sums to 1.
    """
    q_sample, k_sample = sample_positions(q.shape[2], q.device), sample_positions(k.shape[2], k.device)
    if backend == "triton":
        from .ops.importance.triton import sampled_max_triton as op
    else:
        op = _sampled_max_torch
    scores = op(q, k, q_sample, k_sample, block_m, block_n)
    return scores / scores.sum(-1, keepdim=True)


def mean(q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int, backend: str = "torch") -> torch.Tensor:
    """Softmax over key blocks of block-mean query times block-mean key: a cheap estimator.

    A key block's logit gets the logarithm of its token count, as every pooled row does.
    Args and result: as of :func:`sampled_max`; the same code on every backend.
    """
    q_mean, _ = _block_means(q, block_m)
    k_mean, tokens = _block_means(k, block_n)
    return (q_mean @ k_mean.mT * q.shape[-1] ** -0.5 + tokens.log()).softmax(-1)


ESTIMATORS: dict[str, Estimator] = {"sampled_max": sampled_max, "mean": mean}


# Out of inference mode, because the cache outlives it and autograd refuses tensors made there.
@lru_cache(maxsize=32)
@torch.inference_mode(False)
def sample_positions(length: int, device: torch.device) -> torch.Tensor:
    """One token from each run of four: int64 ``[ceil(length / 4)]``, ascending, the same for a length every time.

    The choice comes from a generator of its own, so torch's global ones are left alone.
    """
    starts = torch.arange(0, length, SAMPLE_STRIDE, device="cpu")
    generator = torch.Generator().manual_seed(_SEED)
    draws = torch.randint(SAMPLE_STRIDE, starts.shape, generator=generator, device="cpu")
    return (starts + draws % (length - starts).clamp(max=SAMPLE_STRIDE)).to(device)


def _sampled_max_torch(
    q: torch.Tensor, k: torch.Tensor, q_sample: torch.Tensor, k_sample: torch.Tensor, block_m: int, block_n: int
) -> torch.Tensor:
    keys = k[:, :, k_sample].float().mT
    per_block = block_m // SAMPLE_STRIDE
    per_chunk = max(1, _CHUNK_NUMBERS // (q.shape[0] * q.shape[1] * len(k_sample) * per_block)) * per_block
    chunks = []
    for positions in q_sample.split(per_chunk):
        weights = (q[:, :, positions].float() @ keys * q.shape[-1] ** -0.5).softmax(-1)
        by_query_block = _block_max(weights.transpose(2, 3), per_block)
        chunks.append(_block_max(by_query_block.transpose(2, 3), block_n // SAMPLE_STRIDE))
    return torch.cat(chunks, 2)


def _block_max(x: torch.Tensor, size: int) -> torch.Tensor:
    """Maxima of runs of ``size`` along the last dimension; the last run may be shorter. Entries are not negative."""
    blocks = math.ceil(x.shape[-1] / size)
    padded = torch.nn.functional.pad(x, (0, blocks * size - x.shape[-1]))
    return padded.unflatten(-1, (blocks, size)).amax(-1)


def _block_means(x: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of each block of tokens ``[B, H, blocks, D]`` in float32, and its token count ``[blocks]``."""
    length = x.shape[2]
    blocks = math.ceil(length / size)
    whole = length // size
    means = x[:, :, : whole * size].unflatten(2, (whole, size)).mean(3, dtype=torch.float32)
    if whole < blocks:
        tail = x[:, :, whole * size :].mean(2, dtype=torch.float32)
        means = torch.cat([means, tail[:, :, None]], 2)
    tokens = (length - size * torch.arange(blocks, device=x.device)).clamp(max=size)
    return means, tokens.float()
