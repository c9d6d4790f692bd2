"""Attention over a level map in INT8, and for which heads that is too coarse."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..ops.attention.dispatch import pack_for_hopper, runs_int8_on_hopper
from ..ops.attention.quantised import ExactHeads, pack_for, quantised_attention_triton
from ..ops.block_list.build import BlockList, build_block_list
from ..ops.block_positions import block_positions
from ..ops.constant import constant
from ..ops.grouped import for_key_heads
from ..ops.packed.rows import Packed
from ..ops.pyramid.rows import build_pyramid
from ..ops.pyramid.triton import pool_keys_triton
from ..ops.reorder.orders import Orders, as_they_lie, queries_of, take_queries
from .errors import relative_error, squares

# Relative error that quantisation may add to a head's output.
MOST_ADDED = 0.02


class Quantised(NamedTuple):
    """What came of attention in INT8.

    Attributes:
        out: ``[B, H, Lq, D]``.
        level_shares: tells the shares of levels in the map.
        exact_heads: uint8 ``[B, H]``, the heads that were not quantised; None for none.
    """

    out: torch.Tensor
    level_shares: Callable[[], torch.Tensor]
    exact_heads: torch.Tensor | None


def attend_quantised(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    block_m: int,
    block_n: int,
    max_level: int,
    precision: str,
    orders: Orders | None = None,
    block_list: BlockList | None = None,
    exact_heads: torch.Tensor | None = None,
    measured: tuple[int, ...] = (),
    pooled: torch.Tensor | None = None,
    hidden: torch.Tensor | None = None,
) -> Quantised:
    """As :func:`~.attend.attend` with the Triton kernels, in ``"int8"`` or ``"int8+fp8"``.

    Args:
        exact_heads: heads that are not to be quantised, where it is known which.
        measured: query blocks on which the error that quantisation adds is measured, where it is not; a head to whose
            output it adds more than 0.02 stays exact. Empty to quantise all heads.
        pooled: as of :class:`.level_map.LevelMap`.
        hidden: as of ``attend``.
    """
    if block_list is None:
        block_list = build_block_list(levels, max_level, block_n, k.shape[2], "triton")
    every_head = hidden is None and exact_heads is None and not measured
    if every_head and precision == "int8" and runs_int8_on_hopper(q.device, q.dtype, q.shape[3], block_m, block_n):
        out = _attend_on_hopper(q, k, v, block_list, max_level, block_n, orders, pooled)
        return Quantised(out, block_list.level_shares, None)
    packed = pack_for(k, v, precision, block_m, block_n, max_level, orders, pooled)
    exact = None
    if exact_heads is not None:
        read = for_key_heads(exact_heads, k.shape[1])
        exact = ExactHeads(exact_heads, pool_keys_triton(k, max_level, orders, read))
    elif measured:
        k_rows = pool_keys_triton(k, max_level, orders, pooled)
        exact_heads = _too_coarse(q, k, v, levels, block_m, block_n, k_rows, packed, orders, measured, hidden)
        exact = ExactHeads(exact_heads, k_rows)
    tensors = q, k, v, block_list, packed
    out = quantised_attention_triton(*tensors, block_m, block_n, orders, queries_of(orders), exact, hidden)
    return Quantised(out, block_list.level_shares, exact_heads)


def _attend_on_hopper(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    block_list: BlockList,
    max_level: int,
    block_n: int,
    orders: Orders | None,
    pooled: torch.Tensor | None,
) -> torch.Tensor:
    """Level 1 in INT8, and pooled rows, which are gathered, in 16 bits."""
    from ..ops.attention.hopper import pyramid_attention_hopper

    packed = pack_for_hopper(k, v, orders)
    pyramid = build_pyramid(k, v, max_level, "triton", orders, pooled)
    return pyramid_attention_hopper(q, k, v, block_list, pyramid, block_n, orders, queries_of(orders), packed=packed)


def _too_coarse(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    levels: torch.Tensor,
    block_m: int,
    block_n: int,
    k_rows: torch.Tensor,
    packed: Packed,
    orders: Orders | None,
    blocks: tuple[int, ...],
    hidden: torch.Tensor | None,
) -> torch.Tensor:
    """The heads to which quantisation adds too much, uint8 ``[B, H]``: some query blocks are computed both ways."""
    batch, heads, length, _ = q.shape
    positions = block_positions(blocks, block_m, length, q.device)
    rows = take_queries(q, positions, orders)
    hidden = None if hidden is None else hidden.index_select(0, positions)
    of_rows = levels.index_select(2, constant(blocks, torch.int64, q.device))
    block_list = build_block_list(of_rows, packed.pooled.max_level, block_n, k.shape[2], "triton")
    in_order = None if orders is None else as_they_lie(batch, heads, rows.shape[2], q.device)
    found = []
    for value in (0, 1):
        exact = ExactHeads(q.new_full((batch, heads), value, dtype=torch.uint8), k_rows)
        tensors = rows, k, v, block_list, packed
        out = quantised_attention_triton(*tensors, block_m, block_n, orders, in_order, exact, hidden)
        found.append(out.float())
    added = relative_error(squares(found[0] - found[1]), squares(found[1]))
    # What is no number keeps to no bound.
    return (~(added <= MOST_ADDED)).to(torch.uint8)
