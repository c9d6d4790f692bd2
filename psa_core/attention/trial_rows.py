"""Which queries of a call its trial measures errors on, and attention of these over level maps."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn.functional import pad

from ..ops.reorder.orders import Orders, as_they_lie
from ..settings.sinks import Sinks
from .attend import attend

# Query blocks of a trial, and the queries of each that errors are taken of: neighbours have much the same error.
BLOCKS = 8
ROWS = 32
# Queries of the kernels' smallest tile.
_TILE = 64
# Steps of this share of a sequence, wrapped, fall evenly and never in step with the rows or columns of a picture.
_GOLDEN = (5**0.5 - 1) / 2


# Asked several times a call.
@lru_cache(maxsize=64)
def trial_blocks(tokens: int, block_m: int, sinks: Sinks) -> tuple[int, ...]:
    """The query blocks of a trial: 8, or as many as there are, spread over the whole blocks without sinks.

    One lies somewhere in each eighth of them: eight at equal distances would all have the same place in the picture
    where the order is one of rows or columns. Of a sequence that has no such block, the last one.
    """
    held = {block for sink in sinks for block in sink.blocks(block_m)}
    free = [block for block in range(tokens // block_m) if block not in held]
    if not free:
        return ((tokens - 1) // block_m,)
    if len(free) <= BLOCKS:
        return tuple(free)
    eighth = len(free) / BLOCKS
    # Less than a whole block short of an eighth, so that no two are the same.
    return tuple(free[int(i * eighth + (i + 1) * _GOLDEN % 1 * (eighth - 1))] for i in range(BLOCKS))


def in_blocks(x: torch.Tensor) -> torch.Tensor:
    """``[..., blocks, ROWS, D]`` of ``[..., n, D]``, with zeros for the rows that a last block lacks."""
    return pad(x, (0, 0, 0, -x.shape[-2] % ROWS)).unflatten(-2, (-1, ROWS))


def attend_maps(
    rows: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    maps: list[torch.Tensor],
    block_n: int,
    max_level: int,
    backend: str,
    orders: Orders | None = None,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of a trial's queries over several level maps.

    Args:
        rows: ``[B, H, n, D]``, the queries of all blocks.
        k, v, block_n, max_level, backend, orders: as in :func:`~.attend.attend`.
        maps: uint8 ``[B | 1, H | 1, blocks, k_blocks]``.
        hidden: as there, int32 ``[n]``.

    Returns:
        ``[B, H, maps, n, D]``.
    """
    n = len(maps)
    tile = _TILE if backend == "triton" else ROWS
    # Maps side by side, as if they were more query blocks: one launch for all of them.
    levels = torch.stack(maps, 2).flatten(2, 3)
    queries = _in_tiles(rows, tile)[:, :, None].expand(-1, -1, n, -1, -1, -1).flatten(2, 4)
    if hidden is not None:
        hidden = _in_tiles(hidden[:, None], tile).expand(n, -1, -1, -1).flatten()
    own_order = None if orders is None else as_they_lie(*queries.shape[:3], queries.device)
    out, _ = attend(queries, k, v, levels, tile, block_n, max_level, backend, orders, own_order, hidden=hidden)
    return out.unflatten(2, (n, -1, tile))[..., :ROWS, :].flatten(3, 4)[..., : rows.shape[2], :]


def _in_tiles(x: torch.Tensor, tile: int) -> torch.Tensor:
    """``[..., blocks, tile, D]`` of ``[..., n, D]``, with zeros for the rows that are none of the trial's."""
    return pad(in_blocks(x), (0, 0, 0, tile - ROWS))
