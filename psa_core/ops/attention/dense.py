"""Dense attention, torch's own."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def dense_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of all queries over all keys.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, where Hk divides H.
    """
    if q.shape[1] == k.shape[1]:
        return scaled_dot_product_attention(q, k, v)
    # Queries of all heads that share keys are more queries of one head, which every kernel of torch takes.
    together = q.unflatten(1, (k.shape[1], -1)).flatten(2, 3)
    return scaled_dot_product_attention(together, k, v).unflatten(2, (-1, q.shape[2])).flatten(1, 2)


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
