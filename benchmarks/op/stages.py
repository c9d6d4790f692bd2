"""Our op stage by stage. The one module of the benchmark that calls inside of the op."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from psa_core.apps.bench.cases import BLOCK_M, DENSITY, Case
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.ours import IMPORTANCE, SETTINGS, Setting, psa_contender
from psa_core.apps.bench.results import WHOLE_OP, Row
from psa_core.apps.bench.rivals import sdpa_contender
from psa_core.apps.bench.timing import Contender
from psa_core.attention.plan import plan_levels
from psa_core.ops.attention.dispatch import pyramid_attention
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.importance.estimators import ESTIMATORS
from psa_core.ops.pyramid.rows import build_pyramid
from psa_core.ops.reorder import reorder_orders
from psa_core.settings.config import PSAConfig
from psa_core.settings.sinks import text_in_front

from .cases import STAGES_PART
from .memory import with_memory

IMPORTANCE_STAGE, SELECTION, BLOCK_LIST = "importance", "level selection", "block list"
PYRAMID, KERNEL = "pyramid", "kernel"
# What is none of them: gaps between launches.
REST = "the rest"
LEVEL_1_SUFFIX = ", level 1 only"

# Timed, and split into stages afterwards.
_PLAN = "importance and level selection"


def stage_contenders(part: str, case: Case, inputs: Inputs) -> Iterator[Contender]:
    """The dense backend; whole ops and what :func:`stage_rows` needs of them, for every setting; and level 1 alone."""
    yield sdpa_contender(part, case, inputs)
    for setting in SETTINGS:
        row = setting.row(part, case)
        yield with_memory(psa_contender(row, case, setting.config(case), inputs), inputs)
        if not setting.tail:
            for stage, call in _calls(setting.config(case), case, inputs):
                yield Contender(row.replace(stage=stage), call)
    setting = Setting(IMPORTANCE[0])
    density = case.density_beside_text(DENSITY, setting.block_n)
    config = setting.config(case).replace(mask_ratios={1: (0.0, density), 0: (density, 1.0)})
    row = setting.row(part, case).replace(stage=WHOLE_OP + LEVEL_1_SUFFIX)
    yield psa_contender(row, case, config, inputs)
    kernel = dict(_calls(config, case, inputs))[KERNEL]
    yield Contender(row.replace(stage=KERNEL + LEVEL_1_SUFFIX), kernel)


def stage_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows with stages in place of what was timed for them, and the rest of each whole op."""
    by_setting: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row.part == STAGES_PART:
            key = (row.case, row.attention, row.importance, row.block_n, row.density, row.tail)
            by_setting.setdefault(key, {})[row.stage] = row
    result = [row for row in rows if row.stage != _PLAN]
    for timed in by_setting.values():
        if {_PLAN, IMPORTANCE_STAGE} <= timed.keys():
            result.append(_minus(timed[_PLAN], [timed[IMPORTANCE_STAGE]], SELECTION))
        if {WHOLE_OP, _PLAN, PYRAMID, BLOCK_LIST, KERNEL} <= timed.keys():
            stages = [timed[stage] for stage in (_PLAN, PYRAMID, BLOCK_LIST, KERNEL)]
            result.append(_minus(timed[WHOLE_OP], stages, REST))
    return result


def _minus(whole: Row, parts: Sequence[Row], stage: str) -> Row:
    """The time of a call less that of what it holds, never below 0."""
    ms = (whole.ms or 0.0) - sum(row.ms or 0.0 for row in parts)
    return whole.replace(stage=stage, ms=max(0.0, ms), host_ms=None, ratio=None, error=None, extra_memory=None)


def _calls(config: PSAConfig, case: Case, inputs: Inputs) -> Iterator[tuple[str, Callable[[], Any]]]:
    q, k, v = inputs
    orders = reorder_orders(config, case.grid, case.text_length, q.shape[0], q.shape[1], q.device)
    max_level, block_n = max(config.levels), config.block_n
    plan = functools.partial(plan_levels, q, k, config, text_in_front(case.text_length), None, "triton", orders)
    pyramid = functools.partial(build_pyramid, k, v, max_level, "triton", orders)
    levels = plan()
    block_list = functools.partial(build_block_list, levels, max_level, block_n, k.shape[2], "triton")
    yield IMPORTANCE_STAGE, functools.partial(ESTIMATORS[config.importance], q, k, BLOCK_M, block_n, "triton", orders)
    yield _PLAN, plan
    yield PYRAMID, pyramid
    yield BLOCK_LIST, block_list
    yield KERNEL, functools.partial(pyramid_attention, q, k, v, block_list(), pyramid(), BLOCK_M, block_n, orders)
