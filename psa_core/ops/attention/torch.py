"""Pyramid attention in plain torch, block by block, for whatever has no kernel: CPUs, float32, other head sizes."""

from __future__ import annotations

import torch

from ..grouped import group_of
from ..pyramid.rows import Pyramid


def pyramid_attention_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    pyramid: Pyramid,
    block_m: int,
    block_n: int,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each query block over the rows it keeps; the arguments and result of the Triton version.

    Extra memory: the pyramid rows of one head (less than two copies of its keys and values) and one query block
    against the rows it keeps, ``block_m * 2 * Lk`` numbers at most; never ``Lq x Lk``.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, Hk, Lk, D]``, Hk a divisor of H; any dtype and strides.
        levels: uint8 ``[B | 1, H | 1, q_blocks, k_blocks]``.
        pyramid: pooled rows of k and v.
        hidden: int32 ``[Lq]``: how many of the last keys that its block has at level 1 each query does not see
            (:func:`psa_core.ops.causal.hidden_keys`); None where each sees all.

    Returns:
        ``[B, H, Lq, D]``, contiguous, in the dtype of q; zeros where a query block keeps nothing.
    """
    (batch, heads), group = q.shape[:2], group_of(q, k)
    wide = torch.promote_types(q.dtype, torch.float32)
    level_of, block_of, log_count = _row_table(k.shape[2], pyramid.max_level, block_n, q.device)
    log_count = log_count.to(wide)
    levels = levels.expand(batch, heads, -1, -1)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for b, h in ((b, h) for b in range(batch) for h in range(heads)):
        k_rows = torch.cat([k[b, h // group], pyramid.k[b, h // group]]).to(wide)
        v_rows = torch.cat([v[b, h // group], pyramid.v[b, h // group]]).to(wide)
        for i, queries in enumerate(q[b, h].split(block_m)):
            kept = (levels[b, h, i, block_of] == level_of).nonzero().squeeze(1)
            here = slice(i * block_m, (i + 1) * block_m)
            logits = queries.to(wide) @ k_rows[kept].T * q.shape[-1] ** -0.5 + log_count[kept]
            if hidden is not None:
                # Keys stand in front of pooled rows.
                n_keys = torch.searchsorted(kept, k.shape[2])
                column = torch.arange(len(kept), device=q.device)
                unseen = (column < n_keys) & (column >= n_keys - hidden[here, None])
                logits = logits.masked_fill(unseen, -torch.inf)
            out[b, h, here] = logits.softmax(-1) @ v_rows[kept]
    return out


def _row_table(
    length: int, max_level: int, block_n: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Level, key block and log token count of every row: the keys themselves, then the pyramid's rows."""
    level_of, first = [], []
    for level in (1 << i for i in range(max_level.bit_length())):
        start = torch.arange(0, length, level, device=device)
        first.append(start)
        level_of.append(torch.full_like(start, level))
    levels, start = torch.cat(level_of), torch.cat(first)
    count = torch.minimum(levels, length - start)
    return levels, start // block_n, count.double().log()
