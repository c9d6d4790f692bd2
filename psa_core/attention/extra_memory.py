"""What a call takes beside q, k, v and its output, from its sizes: a little more than it comes to, never less."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..ops.importance.sampling import SAMPLE_STRIDE
from ..ops.precision import PRECISIONS, precision_that_runs
from ..ops.pyramid.rows import rows_of_levels
from ..ops.reorder.clusters import CLUSTERED_AT_ONCE
from ..settings.config import PSAConfig
from ..settings.orders import ORDERS_BY_CONTENT
from ..settings.sizes import BLOCK_M

# Of a pair of blocks: its level and three times its importance, as where heads have different estimators; and its place
# in a ranking by plain torch.
_MAP_BYTES, _RANKED_BYTES = 13, 56
# Query blocks that are measured, queries of each, as kernels take them, and level maps at once: three mixes of two
# densities, or six densities.
_MEASURED, _ROWS, _TILE, _MAPS = 8, 32, 64, 6
# GPUs' memory is given in pieces of 512 bytes.
_ROUNDING = 1 << 16
# Logits that plain torch has at once.
_LOGITS = 1 << 26


class ExtraMemory(NamedTuple):
    """Bytes that a call takes.

    Attributes:
        always: however few heads are computed at once: what is kept of all, and what is done with one after another.
        a_head: for every head of a batch entry that is computed at once.
    """

    always: int
    a_head: int


class _Sizes(NamedTuple):
    """Of one head; ``pooled``: rows of its pyramid; ``width``: bytes of a number."""

    q_tokens: int
    k_tokens: int
    d: int
    pooled: int
    width: int

    @property
    def both(self) -> int:
        return self.q_tokens + self.k_tokens


def extra_memory(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, config: PSAConfig, max_level: int, n_orders: int, backend: str
) -> ExtraMemory:
    """What a call takes at most that makes its level map and, where calibration decides, chooses recipes.

    Args:
        q: ``[B, H, Lq, D]``; k, v: ``[B, H, Lk, D]``.
        max_level: the coarsest level that there may be.
        n_orders: orders that heads choose from.
        backend: ``"triton"`` or ``"torch"``.
    """
    q_tokens, k_tokens, d = q.shape[2], k.shape[2], q.shape[3]
    sizes = _Sizes(q_tokens, k_tokens, d, rows_of_levels(k_tokens, max_level), q.element_size())
    blocks = math.ceil(q_tokens / config.block_m), math.ceil(k_tokens / config.block_n)
    heads, pairs = q.shape[0] * q.shape[1], blocks[0] * blocks[1]
    always, choosing = heads * pairs + _ROUNDING, 0
    calibrated = config.mask_mode == "calibrated"
    if calibrated:
        # The queries that errors are taken of, in each order and side by side, and dense attention of them.
        always += heads * n_orders * _MEASURED * _ROWS * d * 6 * sizes.width
        choosing = _choosing(sizes, blocks[1], n_orders)
    if any(order in ORDERS_BY_CONTENT for order in (config.candidate_orders if calibrated else (config.order,))):
        # Tokens in float32 while they are clustered; the clusters, an index, and a wider copy of it.
        always += 6 * min(CLUSTERED_AT_ONCE, q.numel() + k.numel()) + 24 * heads * sizes.both
    if backend == "torch":
        logits = 3 * min(_LOGITS, heads * math.ceil(q_tokens / SAMPLE_STRIDE) * math.ceil(k_tokens / SAMPLE_STRIDE))
        always += _one_head_in_torch(sizes, config.block_m) + 4 * logits
        return ExtraMemory(always, _in_torch(sizes, pairs, n_orders) + choosing)
    copies = sum(x.numel() // heads * sizes.width for x in (q, k, v) if x.stride(3) != 1)
    precision = precision_that_runs(config.precision, q.device, q.dtype, d)
    attending = copies + _attending(sizes, blocks, max_level.bit_length())
    attending += _pyramid(sizes) if precision == PRECISIONS[0] else _packed(sizes, precision)
    if precision == "int8" and _on_hopper(q, config):
        # Whose pooled rows are those of 16 bits, on top of a row's scale.
        attending += sizes.pooled * d
    if precision != PRECISIONS[0] and config.precision == "auto":
        # Pooled keys of exact heads; and a few query blocks both ways, and how far apart they are.
        attending += _pyramid(sizes) // 2 + _MEASURED * config.block_m * d * (3 * sizes.width + 16)
    samples = math.ceil(sizes.both / SAMPLE_STRIDE) * d * sizes.width
    return ExtraMemory(always, max(_MAP_BYTES * pairs + samples, choosing, attending))


def _attending(sizes: _Sizes, blocks: tuple[int, int], n_levels: int) -> int:
    """Copies of level map and output, and block lists."""
    lists = blocks[0] * (5 * blocks[1] + 4 * n_levels + 5)
    return sizes.q_tokens * sizes.d * sizes.width + lists


def _pyramid(sizes: _Sizes) -> int:
    """Pooled rows of keys and values."""
    return 2 * sizes.pooled * sizes.d * sizes.width


def _packed(sizes: _Sizes, precision: str) -> int:
    """Packed keys and values, up to a whole block, and pooled rows, with their scales."""
    a_number = 2 if precision == PRECISIONS[-1] else 3
    pooled = sizes.pooled * (3 * sizes.d + 4)
    return (sizes.k_tokens + 128) * (sizes.d * a_number + 1) + pooled + 8 * sizes.d


def _on_hopper(q: torch.Tensor, config: PSAConfig) -> bool:
    """Whether the kernel for Hopper computes level 1 in INT8."""
    # It needs Triton, which need not be installed.
    from ..ops.attention.dispatch import runs_int8_on_hopper

    return runs_int8_on_hopper(q.device, q.dtype, q.shape[3], config.block_m, config.block_n)


def _choosing(sizes: _Sizes, k_blocks: int, n_orders: int) -> int:
    """Importance in all orders at once, and then, order by order, the errors of recipes."""
    importance = _MEASURED * k_blocks * n_orders * _MAP_BYTES
    # Of keys a share, and of queries the blocks that are measured, with their places.
    sampled = math.ceil(sizes.k_tokens / SAMPLE_STRIDE) + _MEASURED * max(BLOCK_M)
    samples = n_orders * sampled * (sizes.d * sizes.width + 16)
    # Queries and output in tiles; of these the measured rows, and in float32 what they differ by.
    measured = _MAPS * _MEASURED * (_TILE * 2 * sizes.width + _ROWS * (sizes.width + 12)) * sizes.d
    lists = 8 * _MAPS * _MEASURED * k_blocks
    errors = _pyramid(sizes) + measured + lists
    return importance + max(samples, errors)


def _in_torch(sizes: _Sizes, pairs: int, n_orders: int) -> int:
    """Tokens in each order, the pyramid and what it is made of, the output in order and as tokens lie, the ranking."""
    in_order = (2 * n_orders + 1) * sizes.both * sizes.d * sizes.width + _pyramid(sizes) + 24 * sizes.both
    wide = max(4, sizes.width)
    return in_order + 2 * sizes.k_tokens * sizes.d * wide + _RANKED_BYTES * pairs


def _one_head_in_torch(sizes: _Sizes, block_m: int) -> int:
    """One head's rows in float32, those that a query block keeps, and its logits with them."""
    wide = max(4, sizes.width)
    rows = sizes.k_tokens + sizes.pooled
    return rows * (sizes.d * (2 * sizes.width + 4 * wide) + 3 * block_m * wide + 48)
