"""Which rows and which columns of a level map sinks put at level 1."""

from __future__ import annotations

import torch

from ...settings.sinks import Sinks, behind, sink_columns, sink_rows
from ..device_cache import device_cache


# A call has one set of sinks, and a trial of it other rows.
@device_cache(maxsize=64)
def sink_tables(
    sinks: Sinks,
    block_m: int,
    block_n: int,
    blocks: tuple[int, ...] | int,
    k_blocks: int,
    device: torch.device,
    offset: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows and which columns of a level map sinks put at level 1: uint8 ``[q_blocks]`` and ``[k_blocks]``.

    Args:
        blocks: which query blocks the rows are, or how many of the first there are.
        offset: where the first query stands among the tokens of the sinks.
    """
    numbers = tuple(range(blocks)) if isinstance(blocks, int) else blocks
    tables = sink_rows(behind(sinks, offset), block_m, numbers), sink_columns(sinks, block_n, k_blocks)
    rows, columns = (torch.tensor(table, dtype=torch.uint8, device=device) for table in tables)
    return rows, columns
