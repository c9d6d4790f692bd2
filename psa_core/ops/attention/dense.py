"""Dense attention, torch's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn.functional import scaled_dot_product_attention

from ..current_device import on_device_of_first


def dense_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of all queries over all keys.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, where Hk divides H.
    """
    return _with_heads_of_keys(scaled_dot_product_attention, q, k, v)


def few_queries_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention over all keys, for so few queries that a program for each tile of them leaves most of a GPU idle.

    FlashAttention then shares the keys out among programs, and cuDNN, which torch prefers on Hopper, does not: on an
    H200, 64 queries a head over 64,800 keys take a quarter of cuDNN's time, 256 a little less than it, 1,024 nearly
    twice as long.
    Args and result: as in :func:`dense_attention`.
    """
    return _with_heads_of_keys(_by_flash_attention, q, k, v)


@on_device_of_first
def _by_flash_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """FlashAttention where torch has it for such a call, and torch's own choice elsewhere."""
    # Heads of other sizes torch pads itself.
    if q.is_cuda and q.shape[-1] % 8 == 0 and can_use_flash_attention(SDPAParams(q, k, v, None, 0.0, False, False)):
        # By its operator: ``sdpa_kernel`` would switch cuDNN off in every thread, and for good where two that do so
        # overlap.
        out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention.default(q, k, v)[0]
        return out
    return scaled_dot_product_attention(q, k, v)


def _with_heads_of_keys(
    attend: Callable[..., torch.Tensor], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """Attention with as many heads of queries as of keys, which every kernel of torch takes."""
    if q.shape[1] == k.shape[1]:
        return attend(q, k, v)
    # Queries of all heads that share keys are more queries of one head.
    together = q.unflatten(1, (k.shape[1], -1)).flatten(2, 3)
    return attend(together, k, v).unflatten(2, (-1, q.shape[2])).flatten(1, 2)


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of query i of Lq over the keys up to i + Lk - Lq; arguments as in :func:`dense_attention`."""
    q_tokens, k_tokens = q.shape[2], k.shape[2]
    if q_tokens == 1:
        return dense_attention(q, k, v)
    grouped = q.shape[1] != k.shape[1]
    if q_tokens == k_tokens:
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    from torch.nn.attention.bias import causal_lower_right

    mask = causal_lower_right(q_tokens, k_tokens)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
