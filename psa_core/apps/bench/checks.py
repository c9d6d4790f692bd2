"""Is the result right? Asked before any time is printed."""

from __future__ import annotations

import math

import torch

from ...attention.call import attention_from_levels
from .cases import BLOCK_M
from .inputs import Inputs

_SAMPLED_BLOCKS = 32


class WrongResultError(RuntimeError):
    """An attention result differs from what it must be; the message says whose and by how much."""


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference by the norm of what is expected; NaN when an element is NaN."""
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).norm() / expected.norm())


def judge(who: str, error: float, bound: float) -> None:
    """Let an error below the bound pass.

    Raises:
        WrongResultError: it is not below, or NaN.
    """
    if not error < bound:
        raise WrongResultError(f"{who}: wrong result, relative error {error:.2g} where {bound:g} is allowed")


def error_from_levels(out: torch.Tensor, inputs: Inputs, levels: torch.Tensor, block_n: int) -> float:
    """Relative error of an attention result against float32 in plain torch on the same level map.

    Of the last head, and of at most 32 query blocks evenly spread, first and last among them.

    Args:
        out: ``[1, H, L, D]``; inputs, out: in the order in which blocks are cut.
        levels: uint8 ``[1, 1 | H, q_blocks, k_blocks]``.
    """
    q_blocks, length = levels.shape[2], out.shape[2]
    blocks = torch.linspace(0, q_blocks - 1, min(_SAMPLED_BLOCKS, q_blocks)).round().long().to(out.device)
    tokens = (blocks[:, None] * BLOCK_M + torch.arange(BLOCK_M, device=out.device)).flatten()
    tokens = tokens[tokens < length]
    q, k, v = inputs.q[:, -1:, tokens].float(), inputs.k[:, -1:].float(), inputs.v[:, -1:].float()
    expected = attention_from_levels(q, k, v, levels[:, -1:, blocks], block_m=BLOCK_M, block_n=block_n, backend="torch")
    return relative_error(out[:, -1:, tokens], expected)


def error_from_dense(out: torch.Tensor, inputs: Inputs) -> float:
    """Relative error of an attention result ``[1, H, L, D]`` against dense attention, as :func:`error_from_levels`."""
    blocks = math.ceil(inputs.q.shape[2] / BLOCK_M)
    full = torch.ones(1, 1, blocks, blocks, dtype=torch.uint8, device=out.device)
    return error_from_levels(out, inputs, full, BLOCK_M)


def poison_free_memory(like: torch.Tensor, copies: int = 8) -> None:
    """Leave NaN in the memory that the next allocations get, so that an element which nobody writes shows."""
    torch.cuda.empty_cache()
    size = copies * like.nbytes
    if like.is_cuda:
        # So that a small GPU has room for it.
        size = min(size, torch.cuda.mem_get_info(like.device)[0] // 2)
    torch.full((size // 4,), math.nan, device=like.device)
