"""What ``psa bench`` measures, as jobs: one case's contenders, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from .cases import (
    CASES,
    CASES_PART,
    DENSITIES,
    DENSITY,
    DENSITY_CASES,
    DENSITY_PART,
    QUICK_DENSITIES,
    Case,
    chosen_cases,
)
from .inputs import Inputs
from .ours import IMPORTANCE, SETTINGS, Setting, topk_contenders
from .results import Row
from .rivals import rival_contenders, sdpa_contender
from .timing import Contender


@dataclass(frozen=True)
class Job:
    """One case of one part.

    Attributes:
        contenders: makes them for a part, a case and its inputs; a row is one that takes no part, or is done.
            The dense backend comes first, where there is one.
        finish: makes the rows that are kept of those that were measured.
    """

    part: str
    case: Case
    contenders: Callable[[str, Case, Inputs], Iterable[Contender | Row]]
    finish: Callable[[Sequence[Row]], list[Row]] = list


def op_jobs(names: Sequence[str] | None = None, quick: bool = False) -> list[Job]:
    """Every case beside its rivals, and two of them by density.

    Args:
        names: (parts of) names of cases to keep.
        quick: fewer densities.

    Raises:
        ConfigError: a name fits no case.
    """
    by_density = partial(density_contenders, densities=QUICK_DENSITIES if quick else DENSITIES)
    return [
        *(Job(CASES_PART, case, case_contenders) for case in chosen_cases(names, CASES)),
        *(Job(DENSITY_PART, case, by_density) for case in chosen_cases(names, DENSITY_CASES)),
    ]


def case_contenders(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    """The dense backend, its rivals, and every setting of ours."""
    yield sdpa_contender(part, case, inputs)
    yield from rival_contenders(part, case, inputs, DENSITY)
    yield from topk_contenders(part, case, inputs, SETTINGS)


def density_contenders(part: str, case: Case, inputs: Inputs, densities: Sequence[float]) -> Iterator[Contender | Row]:
    """The dense backend, and ours with each estimator at each density."""
    yield sdpa_contender(part, case, inputs)
    settings = (Setting(name, density=density) for name in IMPORTANCE for density in densities)
    yield from topk_contenders(part, case, inputs, settings)
