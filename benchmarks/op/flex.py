"""FlexAttention on the same tensors and blocks."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from psa_core.apps.bench.cases import BLOCK_M, Case
from psa_core.apps.bench.checks import error_from_levels
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.results import Row
from psa_core.apps.bench.timing import Contender
from psa_core.ops.importance.estimators import mean

FLEX = "FlexAttention"
BLOCK_N = 128


def flex_contenders(part: str, case: Case, inputs: Inputs, densities: Sequence[float]) -> Iterator[Contender]:
    """FlexAttention on level 1 blocks alone: it cannot pool, so it gets the share of blocks that has the same density.

    The blocks are those of most importance by block means, chosen before the clock starts.
    """
    forget_compiled()
    for density in densities:
        kept = top_blocks(inputs, density)
        row = Row.of(part, case, FLEX, block_n=BLOCK_N, density=density, reached_density=float(kept.float().mean()))
        yield flex_contender_of(row, case, inputs, kept)


def flex_contender_of(row: Row, case: Case, inputs: Inputs, kept: torch.Tensor) -> Contender:
    """FlexAttention on these blocks, bool ``[1, H | 1, q_blocks, k_blocks]``."""
    call = functools.partial(_compiled_flex(), *inputs, block_mask=flex_block_mask(kept, case.tokens))
    levels = kept.to(torch.uint8)
    return Contender(row, call, error=lambda: error_from_levels(call(), inputs, levels, BLOCK_N), rival=True)


@functools.lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def forget_compiled() -> None:
    """Drop what torch has compiled: it compiles FlexAttention for each shape and gives up after a few of them."""
    torch._dynamo.reset()


def top_blocks(inputs: Inputs, density: float) -> torch.Tensor:
    """The most important key blocks of each query block: bool ``[1, H, q_blocks, k_blocks]``, the same count a row."""
    importance = mean(inputs.q, inputs.k, BLOCK_M, BLOCK_N)
    count = max(1, math.ceil(density * importance.shape[-1] - 1e-9))
    kept = torch.zeros_like(importance, dtype=torch.bool)
    return kept.scatter_(-1, importance.topk(count, -1).indices, True)


def flex_block_mask(kept: torch.Tensor, length: int) -> BlockMask:
    """The block mask of the kept blocks, all of them whole, so that no mask function runs."""
    counts = kept.sum(-1, dtype=torch.int32)
    blocks = kept.to(torch.uint8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    none = torch.zeros_like(counts)
    return BlockMask.from_kv_blocks(
        none, blocks, counts, blocks, BLOCK_SIZE=(BLOCK_M, BLOCK_N), seq_lengths=(length, length)
    )
