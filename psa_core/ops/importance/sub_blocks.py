"""Importance from means of short runs of tokens: nearly as cheap as that from means of whole blocks, and less blind."""

from __future__ import annotations

import torch

from ..block_positions import block_positions
from ..causal import Causal, seen_runs
from ..reorder.orders import Orders, as_they_lie, queries_of, take_queries
from .sampling import SAMPLED_SUM
from .torch import block_means, rows_of_sum_1, scores_torch

# Tokens of a run, of queries and of keys. On the bundled model's heads the error of attention over maps by runs of 4,
# 8, 16 and 32 is .141, .147, .158 and .162 (density .15, level 1, raster order); each doubling is four times cheaper.
SUB_BLOCK = 8


def sub_block_mass(
    q: torch.Tensor,
    k: torch.Tensor,
    block_m: int,
    block_n: int,
    backend: str = "torch",
    orders: Orders | None = None,
    blocks: tuple[int, ...] | None = None,
    causal: Causal | None = None,
) -> torch.Tensor:
    """Sum of the softmax weights between the mean queries and the mean keys of the runs of eight tokens in two blocks.

    It takes a 64th of the products of all queries and keys. A ragged last run counts as a whole one.
    Under the causal mask a run of keys counts for a run of queries whose last one sees its last key.
    Args and result: as in :func:`psa_core.ops.importance.estimators.sampled_max`, but ``"torch"`` takes no orders.
    """
    per_m, per_n = block_m // SUB_BLOCK, block_n // SUB_BLOCK
    seen = None if causal is None else seen_runs(causal, SUB_BLOCK, SUB_BLOCK, blocks, q.device)
    q_orders = queries_of(orders)
    if blocks is not None:
        q, q_orders = take_queries(q, block_positions(blocks, block_m, q.shape[2], q.device), orders), None
    if backend == "triton":
        from ..pyramid.triton import block_means_triton
        from .triton import scores_triton

        q_mean, k_mean = (block_means_triton(x, SUB_BLOCK, of, x.dtype) for x, of in ((q, q_orders), (k, orders)))
        runs = as_they_lie(*q_mean.shape[:3], q.device)
        scores = scores_triton(q_mean, k_mean, runs, per_m, per_n, SAMPLED_SUM, seen)
    else:
        assert orders is None, "torch cuts blocks from the order that tokens have"
        scores = scores_torch(block_means(q, SUB_BLOCK), block_means(k, SUB_BLOCK), per_m, per_n, torch.sum, seen)
    return rows_of_sum_1(scores, causal is not None)
