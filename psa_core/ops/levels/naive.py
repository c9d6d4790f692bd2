"""Level selection from its rules, row by row in Python. The oracle of this folder."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...settings.config import PSAConfig
from ...settings.mask_ratios import pyramid_order
from ...settings.sinks import Sinks
from ..causal import Causal
from .bounds import Quotas


def levels_from_importance_naive(
    importance: torch.Tensor,
    config: PSAConfig,
    cap: torch.Tensor | None = None,
    static_levels: torch.Tensor | None = None,
    static_rule: str = "intersect",
    sinks: Sinks = (),
    quotas: Quotas | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """The level map that runs; arguments and result as in ``psa_core.ops.levels.rules.levels_from_importance``."""
    if quotas is None:
        levels = select_levels_naive(importance, config.mask_ratios, config.mask_mode, config.min_full_ratio, causal)
    else:
        levels = select_quotas_naive(importance, quotas, causal)
    static = torch.ones_like(levels) if static_levels is None else static_levels.expand(levels.shape)
    caps = torch.full_like(levels, 255) if cap is None else cap.expand(levels.shape)
    batch, heads, q_blocks, k_blocks = levels.shape
    for b, h, i in ((b, h, i) for b in range(batch) for h in range(heads) for i in range(q_blocks)):
        row = levels[b, h, i]
        for j in range(k_blocks):
            if static_levels is not None:
                both = [int(row[j]), int(static[b, h, i, j])]
                row[j] = max(both, key=pyramid_order) if static_rule == "intersect" else min(both, key=pyramid_order)
            row[j] = min(row[j], caps[b, h, i, j])
            at = i * config.block_m + (causal.offset if causal else 0)
            queries = range(at, at + config.block_m)
            keys = range(j * config.block_n, (j + 1) * config.block_n)
            for sink in sinks:
                tokens = range(sink.start, sink.stop)
                if any(k in tokens for k in keys) or (sink.dense_rows and any(q in tokens for q in queries)):
                    row[j] = 1
        if causal is not None:
            own = _own(causal, i)
            row[own.start : own.stop], row[own.stop :] = 1, 0
        if not row.any():
            candidates = [j for j in range(k_blocks) if static[b, h, i, j]] or list(range(k_blocks))
            row[max(candidates, key=lambda j: importance[b, h, i, j])] = 1
    return levels


def select_levels_naive(
    importance: torch.Tensor,
    mask_ratios: Mapping[int, tuple[float, float]],
    mask_mode: str,
    min_full_ratio: float,
    causal: Causal | None = None,
) -> torch.Tensor:
    """The level of every block pair; arguments and result as in ``psa_core.ops.levels.rules.select_levels``."""
    q_blocks, k_blocks = importance.shape[-2:]
    levels = []
    for number, row in enumerate(importance.reshape(-1, k_blocks).tolist()):
        own = _own(causal, number % q_blocks) if causal else range(0)
        seen = row[: own.stop] if causal else row
        chosen = _select_row(seen, mask_ratios, mask_mode, min_full_ratio, own)
        levels.append(chosen + [0] * (k_blocks - len(seen)))
    return torch.tensor(levels, dtype=torch.uint8).reshape(importance.shape)


def select_quotas_naive(importance: torch.Tensor, quotas: Quotas, causal: Causal | None = None) -> torch.Tensor:
    """The level of every block pair, uint8 of the importance's shape, by each head's own quotas."""
    levels = torch.zeros(importance.shape, dtype=torch.uint8)
    batch, heads, q_blocks, _ = importance.shape
    for b, h, i in ((b, h, i) for b in range(batch) for h in range(heads) for i in range(q_blocks)):
        bounds = quotas.bounds.expand(-1, -1, q_blocks, -1)[b, h, i].tolist()
        own = _own(causal, i) if causal else range(0)
        for rank, block in enumerate(_ranked(importance[b, h, i].tolist(), own)):
            levels[b, h, i, block] = quotas.levels[sum(bound <= rank for bound in bounds)]
    return levels


def _select_row(
    row: list[float],
    mask_ratios: Mapping[int, tuple[float, float]],
    mask_mode: str,
    min_full_ratio: float,
    own: range,
) -> list[int]:
    levels = [0] * len(row)
    mass = 0.0
    for rank, block in enumerate(_ranked(row, own)):
        position = rank / len(row) if mask_mode == "topk" else mass
        for level, (lo, hi) in mask_ratios.items():
            # With all importance spent (1.0, or a last bit more) a block belongs to the last level in use.
            if lo <= position < hi or (lo < hi == 1.0 <= position):
                levels[block] = level
        if mask_mode == "thresholdbound" and rank / len(row) < min_full_ratio:
            levels[block] = 1
        mass += row[block]
    return levels


def _ranked(row: list[float], own: range) -> list[int]:
    """Own blocks, then the others by importance, the most important first; equal ones in their order."""
    return sorted(range(len(row)), key=lambda block: (block not in own, -row[block]))


def _own(causal: Causal, i: int) -> range:
    """The key blocks that hold the positions of a query block's queries."""
    first = i * causal.block_m + causal.offset
    last = min(first + causal.block_m, causal.k_tokens) - 1
    return range(first // causal.block_n, last // causal.block_n + 1)
