"""The error of a setting at a density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from psa_core.attention.call import attention_from_levels
from psa_core.ops.levels.rules import density, levels_from_importance
from psa_core.ops.reorder import reorder_orders
from psa_core.ops.similarity.cap import similarity_cap
from psa_core.settings.config import PSAConfig

from .capture import GRID, Call
from .estimators import effective_keys, importance
from .questions import Setting

_HALVINGS = 14


class Heads(NamedTuple):
    """Numbers of every head of every call, in their order."""

    error: torch.Tensor
    density: float


class _Ready(NamedTuple):
    """A call in the order in which blocks are cut, and what levels are chosen by."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    dense: torch.Tensor
    importance: torch.Tensor
    cap: torch.Tensor | None


def sharp_heads(calls: Sequence[Call]) -> torch.Tensor:
    """Which heads of all calls attend to fewer keys than the median one does; bool, one after another."""
    counts = torch.cat([effective_keys(call.q, call.k) for call in calls])
    return counts < counts.median()


def measure(calls: Sequence[Call], setting: Setting, densities: Sequence[float]) -> list[Heads]:
    """Relative error of norms against dense attention, at each density or as near as whole blocks come to it."""
    ready = [_prepare(call, setting) for call in calls]
    found = []
    for wanted in densities:
        config = _config_of_density(ready, setting, wanted)
        maps = [_levels(call, config) for call in ready]
        errors = [_errors(call, levels, config) for call, levels in zip(ready, maps, strict=True)]
        found.append(Heads(torch.cat(errors), _mean_density(maps)))
    return found


def _prepare(call: Call, setting: Setting) -> _Ready:
    config = setting.config(0.5, _k_blocks(setting))
    orders = reorder_orders(config, GRID, 0, call.q.shape[0], call.q.shape[1], call.q.device)
    q, k, v, dense = (x if orders is None else orders.take(x) for x in (call.q, call.k, call.v, call.dense))
    cap = similarity_cap(k, config) if setting.cap else None
    return _Ready(q, k, v, dense, importance(setting.importance, q, k, config.block_m, config.block_n), cap)


def _config_of_density(ready: Sequence[_Ready], setting: Setting, wanted: float) -> PSAConfig:
    """By bisection: density grows with the amount."""
    low, high = 0.0, 1.0
    best, nearest = math.inf, setting.config(wanted, _k_blocks(setting))
    for _ in range(_HALVINGS):
        amount = (low + high) / 2
        config = setting.config(amount, _k_blocks(setting))
        reached = _mean_density([_levels(call, config) for call in ready])
        if abs(reached - wanted) < best:
            best, nearest = abs(reached - wanted), config
        low, high = (amount, high) if reached < wanted else (low, amount)
    return nearest


def _levels(call: _Ready, config: PSAConfig) -> torch.Tensor:
    return levels_from_importance(call.importance, config, call.cap)


def _mean_density(maps: Sequence[torch.Tensor]) -> float:
    return float(torch.stack([density(levels) for levels in maps]).mean())


def _errors(call: _Ready, levels: torch.Tensor, config: PSAConfig) -> torch.Tensor:
    """Of each head of a call."""
    tensors = call.q, call.k, call.v, levels
    out = attention_from_levels(*tensors, block_m=config.block_m, block_n=config.block_n, backend="torch")
    difference, whole = (torch.linalg.vector_norm(x[0], dim=(1, 2)) for x in (out - call.dense, call.dense))
    return difference / whole


def _k_blocks(setting: Setting) -> int:
    return math.ceil(math.prod(GRID) / setting.block_n)
