"""The parts of the benchmark as jobs: one case's contenders, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ...attention.call import pyramid_sparse_attention
from .cases import (
    CASES,
    CASES_PART,
    DENSITIES,
    DENSITY,
    DENSITY_CASES,
    DENSITY_PART,
    FIRST_CALL_PART,
    LENGTH_DENSITIES,
    LENGTH_PART,
    LOCALITY_PART,
    MASK_CASES,
    MASKS_PART,
    PARTS,
    STAGES_PART,
    WAN_720P,
    Case,
    chosen_cases,
    length_cases,
)
from .inputs import Inputs
from .masks import mask_contenders
from .ours import IMPORTANCE, SETTINGS, Setting, adaptive_contenders, topk_contenders
from .results import Row
from .rivals import flex_contender, rival_contenders, sdpa_contender
from .stages import stage_contenders
from .timing import Contender

FIRST_CALL, SECOND_CALL, LATER_CALL = "first call", "second call", "a later call"

_QUICK_DENSITIES = (0.15, 0.4)
_QUICK_LONGEST = 17_000


@dataclass(frozen=True)
class Job:
    """One case of one part.

    Attributes:
        contenders: makes them for a part, a case and its inputs; a row is one that takes no part, or is done.
            The dense backend comes first, where there is one.
    """

    part: str
    case: Case
    contenders: Callable[[str, Case, Inputs], Iterable[Contender | Row]]


def benchmark_jobs(parts: Sequence[str], names: Sequence[str] | None = None, quick: bool = False) -> list[Job]:
    """The jobs of these parts, in the order of :data:`PARTS`.

    Args:
        names: (parts of) names of cases to keep; the sweep of length has none and is left out for any.
        quick: fewer densities and no long clips.

    Raises:
        ConfigError: a name fits no case.
    """
    lengths = [case for case in length_cases() if not quick or case.tokens < _QUICK_LONGEST]
    cases: dict[str, Sequence[Case]] = {
        FIRST_CALL_PART: chosen_cases(names, (WAN_720P,)),
        CASES_PART: chosen_cases(names, CASES),
        DENSITY_PART: chosen_cases(names, DENSITY_CASES),
        LENGTH_PART: lengths if names is None else (),
        LOCALITY_PART: chosen_cases(names, CASES),
        STAGES_PART: chosen_cases(names, CASES),
        MASKS_PART: chosen_cases(names, MASK_CASES),
    }
    densities = _QUICK_DENSITIES if quick else DENSITIES
    contenders: dict[str, Callable[[str, Case, Inputs], Iterable[Contender | Row]]] = {
        FIRST_CALL_PART: _first_calls,
        CASES_PART: _everything,
        DENSITY_PART: lambda part, case, inputs: _by_density(part, case, inputs, densities),
        LENGTH_PART: _by_length,
        LOCALITY_PART: _adaptive,
        STAGES_PART: _by_stage,
        MASKS_PART: mask_contenders,
    }
    return [Job(part, case, contenders[part]) for part in PARTS if part in parts for case in cases[part]]


def _everything(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    yield sdpa_contender(part, case, inputs)
    yield from rival_contenders(part, case, inputs, DENSITY)
    yield from topk_contenders(part, case, inputs, SETTINGS)


def _by_stage(part: str, case: Case, inputs: Inputs) -> Iterator[Contender]:
    yield sdpa_contender(part, case, inputs)
    yield from stage_contenders(part, case, inputs)


def _by_density(part: str, case: Case, inputs: Inputs, densities: Sequence[float]) -> Iterator[Contender]:
    yield sdpa_contender(part, case, inputs)
    settings = (Setting(name, density=density) for name in IMPORTANCE for density in densities)
    yield from topk_contenders(part, case, inputs, tuple(settings))
    for density in densities:
        yield flex_contender(part, case, inputs, density)


def _by_length(part: str, case: Case, inputs: Inputs) -> Iterator[Contender]:
    yield sdpa_contender(part, case, inputs)
    settings = (Setting(name, density=density) for name in IMPORTANCE for density in LENGTH_DENSITIES)
    yield from topk_contenders(part, case, inputs, tuple(settings))


def _adaptive(part: str, case: Case, inputs: Inputs) -> Iterator[Contender]:
    yield sdpa_contender(part, case, inputs)
    yield from adaptive_contenders(part, case, inputs)


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
