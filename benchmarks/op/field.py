"""The shapes that others publish, and those of newer models, beside dense attention and Sol-Attn with its sinks."""

from __future__ import annotations

import math
from collections.abc import Iterator

from psa_core.apps.bench.cases import Case
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.jobs import case_contenders
from psa_core.apps.bench.ours import IMPORTANCE, Setting, psa_contender
from psa_core.apps.bench.results import Row
from psa_core.apps.bench.rivals import rival_contenders, sdpa_contender
from psa_core.apps.bench.timing import Contender
from psa_core.ops.precision import PRECISIONS

from .cases import FEW_BLOCKS

_KEPT_BLOCKS, _BLOCK_N = 64, 64


def field_contenders(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    """As in the cases of ``psa bench``, and ours quantised too."""
    if case == FEW_BLOCKS:
        yield from _few_blocks(part, case, inputs)
        return
    yield from case_contenders(part, case, inputs)
    for precision in PRECISIONS[1:]:
        for importance in IMPORTANCE:
            setting = Setting(importance, precision=precision)
            yield psa_contender(setting.row(part, case), case, setting.config(case), inputs)


def kept_share(case: Case) -> float:
    """The share of key blocks that every query keeps where it keeps so many."""
    return _KEPT_BLOCKS / math.ceil(case.tokens / _BLOCK_N)


def _few_blocks(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    share = kept_share(case)
    yield sdpa_contender(part, case, inputs)
    yield from rival_contenders(part, case, inputs, share)
    for precision in PRECISIONS:
        for importance in IMPORTANCE:
            setting = Setting(importance, _BLOCK_N, share, precision=precision)
            config = setting.config(case).replace(mask_ratios={1: (0.0, share), 0: (share, 1.0)})
            yield psa_contender(setting.row(part, case), case, config, inputs)
