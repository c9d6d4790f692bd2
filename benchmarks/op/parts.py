"""The parts of the benchmark as jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch

from psa_core.apps.bench.cases import (
    CASES,
    CASES_PART,
    DENSITIES,
    DENSITY,
    DENSITY_CASES,
    DENSITY_PART,
    QUICK_DENSITIES,
    WAN_720P,
    Case,
    chosen_cases,
)
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.jobs import Job, case_contenders, density_contenders
from psa_core.apps.bench.ours import IMPORTANCE, Setting, psa_contender
from psa_core.apps.bench.results import Row
from psa_core.apps.bench.rivals import sdpa_contender
from psa_core.apps.bench.timing import Contender
from psa_core.attention.call import pyramid_sparse_attention
from psa_core.settings.config import PSAConfig
from psa_core.settings.errors import ConfigError

from .cases import (
    ALL_CASES,
    FIELD_CASES,
    FIELD_PART,
    FIRST_CALL_PART,
    LENGTH_DENSITIES,
    LENGTH_PART,
    LOCALITY_PART,
    MASK_CASES,
    MASKS_PART,
    MEMORY_PART,
    PARTS,
    PRECISION_CASES,
    PRECISION_PART,
    STAGES_PART,
    WAN_14B_720P,
    length_cases,
)
from .field import field_contenders
from .flex import flex_contenders
from .masks import mask_contenders
from .memory import memory_contenders
from .precisions import precision_contenders
from .stages import stage_contenders, stage_rows

FIRST_CALL, SECOND_CALL, LATER_CALL = "first call", "second call", "a later call"

_QUICK_LONGEST = 17_000


def benchmark_jobs(parts: Sequence[str], names: Sequence[str] | None = None, quick: bool = False) -> list[Job]:
    """The jobs of these parts, in the order of :data:`PARTS`.

    Args:
        names: (parts of) names of cases to keep; the sweep of length has none and is left out for any.
        quick: fewer densities and no long clips.

    Raises:
        ConfigError: no such part, or a name fits no case.
    """
    for part in parts:
        if part not in PARTS:
            raise ConfigError("--only", part, f"must be one of {', '.join(PARTS)}")
    chosen = partial(chosen_cases, names, known=ALL_CASES)
    lengths = [case for case in length_cases() if not quick or case.tokens < _QUICK_LONGEST]
    densities = QUICK_DENSITIES if quick else DENSITIES
    jobs: dict[str, tuple[Sequence[Case], Callable[[str, Case, Inputs], Iterable[Contender | Row]]]] = {
        FIRST_CALL_PART: (chosen((WAN_720P,)), _first_calls),
        CASES_PART: (chosen(CASES), _everything),
        FIELD_PART: (chosen(FIELD_CASES), field_contenders),
        DENSITY_PART: (chosen(DENSITY_CASES), partial(_by_density, densities=densities)),
        LENGTH_PART: (lengths if names is None else (), partial(density_contenders, densities=LENGTH_DENSITIES)),
        LOCALITY_PART: (chosen(CASES), _adaptive),
        STAGES_PART: (chosen(CASES), stage_contenders),
        PRECISION_PART: (chosen(PRECISION_CASES), precision_contenders),
        MEMORY_PART: (chosen((*CASES, WAN_14B_720P)), memory_contenders),
        MASKS_PART: (chosen(MASK_CASES), mask_contenders),
    }
    finish = {STAGES_PART: stage_rows}
    return [
        Job(part, case, jobs[part][1], finish.get(part, list))
        for part in PARTS
        if part in parts
        for case in jobs[part][0]
    ]


def _everything(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    yield from case_contenders(part, case, inputs)
    yield from flex_contenders(part, case, inputs, (DENSITY,))


def _by_density(part: str, case: Case, inputs: Inputs, densities: Sequence[float]) -> Iterator[Contender | Row]:
    yield from density_contenders(part, case, inputs, densities)
    yield from flex_contenders(part, case, inputs, densities)


def _adaptive(part: str, case: Case, inputs: Inputs) -> Iterator[Contender]:
    """The whole op as presets run it: ``thresholdbound`` with the default bounds, each row as long as it needs."""
    yield sdpa_contender(part, case, inputs)
    for importance in IMPORTANCE:
        config = PSAConfig(importance=importance, min_tokens=0)
        row = Setting(importance).row(part, case).replace(density=None)
        yield psa_contender(row, case, config, inputs)


def _first_calls(part: str, case: Case, inputs: Inputs) -> Iterator[Row]:
    """The first call of this size, the second, and the fastest of the next five; the host waits for each."""
    setting = Setting(IMPORTANCE[-1])
    times = []
    for _ in range(7):
        torch.cuda.synchronize()
        start = time.perf_counter()
        pyramid_sparse_attention(
            *inputs, setting.config(case), grid=case.grid, text_length=case.text_length, backend="triton"
        )
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    row = setting.row(part, case)
    for stage, ms in ((FIRST_CALL, times[0]), (SECOND_CALL, times[1]), (LATER_CALL, min(times[2:]))):
        yield row.replace(stage=stage, ms=ms)
