"""Pyramid attention from its definition, in float64 (arXiv 2512.04025, section 3.2). The oracle of this folder."""

from __future__ import annotations

import torch

from ..pyramid.naive import pooled_rows
from ..pyramid.rows import Pyramid


def pyramid_attention_naive(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    block_m: int,
    block_n: int,
    pyramid: Pyramid | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """``out_i = sum_j softmax_j(q_i . k_j / sqrt(D) + ln c_j) v_j`` over the pyramid rows that the level map keeps.

    Materialises every logit: for small shapes only. A query block that keeps nothing gives zeros.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``: head h of q reads head ``h // (H / Hk)`` of these.
        levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``.
        pyramid: pooled rows of k and v, where their rounding must be that of a kernel; None for exact ones.
        causal: query i sees the keys up to ``i + Lk - Lq``; a pooled row that holds any behind them it does not see.

    Returns:
        float64 ``[B, H, Lq, D]``.
    """
    q, k, v = (x.double() for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    query = torch.arange(q.shape[2], device=q.device)
    query_block, position = query // block_m, query + k.shape[2] - q.shape[2]
    logits, values = [], []
    first = 0
    for level in (1 << i for i in range(block_n.bit_length())):
        k_rows, count = pooled_rows(k, level)
        v_rows, _ = pooled_rows(v, level)
        if pyramid is not None and 1 < level <= pyramid.max_level:
            k_rows, v_rows = (x[:, :, first : first + len(count)].double() for x in (pyramid.k, pyramid.v))
            first += len(count)
        row = torch.arange(len(count), device=q.device) * level
        kept = levels[:, :, query_block][..., row // block_n] == level
        if causal:
            kept = kept & (row + count - 1 <= position[:, None])
        k_rows, v_rows = (x.repeat_interleave(group, 1) for x in (k_rows, v_rows))
        logit = q @ k_rows.mT / q.shape[-1] ** 0.5 + count.log()
        logits.append(logit.masked_fill(~kept, -torch.inf))
        values.append(v_rows)
    weights = torch.cat(logits, -1).softmax(-1).nan_to_num()
    return weights @ torch.cat(values, 2)
