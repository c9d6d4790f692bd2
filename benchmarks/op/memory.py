"""Memory that a call needs: what it is made of, and what a bound of it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from psa_core.apps.bench.cases import BLOCK_M, Case
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.ours import IMPORTANCE, Setting, psa_contender
from psa_core.apps.bench.results import Row
from psa_core.apps.bench.rivals import sdpa_contender
from psa_core.apps.bench.side_by_side import DTYPE
from psa_core.apps.bench.timing import Contender
from psa_core.attention.steps import sparse_attention
from psa_core.ops.attention.quantised import pack_for
from psa_core.ops.precision import PRECISIONS, precisions
from psa_core.ops.pyramid.rows import build_pyramid
from psa_core.settings.sinks import text_in_front

BOUND = 1.0
KEPT_MAP, POOLED_ROWS, PACKED = "level map and orders, if kept", "pooled rows", "packed pyramid"


def memory_contenders(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    """Whole ops in each precision, without a bound and with one, and what they are made of."""
    yield sdpa_contender(part, case, inputs)
    for precision in precisions(inputs.q.device, DTYPE, case.head_dim):
        setting = Setting(IMPORTANCE[-1], precision=precision)
        row, config = setting.row(part, case), setting.config(case)
        yield from (row.replace(stage=stage, extra_memory=n / _of(inputs)) for stage, n in _held(setting, case, inputs))
        yield with_memory(psa_contender(row, case, config, inputs), inputs)
        bounded = config.replace(max_extra_memory=BOUND)
        row = row.replace(max_extra_memory=BOUND)
        yield with_memory(psa_contender(row, case, bounded, inputs), inputs)


def with_memory(contender: Contender, inputs: Inputs) -> Contender:
    """The contender with its memory in its row: peak bytes of one call beyond what is there and its own result.

    It must have run before, as a first call also compiles and fills caches.
    """
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = contender.call()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - before - out.nbytes
    return replace(contender, row=contender.row.replace(extra_memory=extra / _of(inputs)))


def _held(setting: Setting, case: Case, inputs: Inputs) -> Iterator[tuple[str, int]]:
    """Bytes of what a call makes of all heads."""
    _, k, v = inputs
    config = setting.config(case)
    attended = sparse_attention(*inputs, config, case.grid, text_in_front(case.text_length), None, "triton")
    level_map = attended.level_map
    assert level_map is not None
    yield KEPT_MAP, level_map.nbytes
    if config.precision == PRECISIONS[0]:
        pyramid = build_pyramid(k, v, level_map.max_level, "triton", level_map.orders)
        yield POOLED_ROWS, pyramid.k.nbytes + pyramid.v.nbytes
    else:
        sizes = BLOCK_M, config.block_n, level_map.max_level
        yield PACKED, pack_for(k, v, config.precision, *sizes, level_map.orders).nbytes


def _of(inputs: Inputs) -> int:
    return inputs.k.nbytes + inputs.v.nbytes
