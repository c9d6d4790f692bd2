"""``psa bench`` in a checkout: what it prints and writes."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psa_core.apps.packages import need
from psa_core.settings.errors import ConfigError

if TYPE_CHECKING:
    from psa_core.apps.bench.results import Results

log = logging.getLogger(__name__)

# What has no meaning beside an option, and the packages that it needs.
_WITHOUT = {
    "base": ("only",),
    "targets": ("only",),
    "model": ("only",),
    "quality": ("only", "cases", "quick"),
    "study": ("only", "cases", "quick"),
    "frontier": ("only",),
    "pixels": ("only",),
}
_NEEDS = {
    "base": ("tqdm",),
    "targets": ("tqdm",),
    "model": ("tqdm", "diffusers"),
    "quality": ("tqdm", "diffusers", "transformers", "skimage"),
    "study": ("tqdm", "diffusers", "transformers"),
    "frontier": ("tqdm", "diffusers", "transformers"),
    "pixels": ("tqdm", "diffusers", "transformers", "skimage"),
}


def run(parsed: argparse.Namespace) -> None:
    """What ``psa bench`` does with these options.

    Raises:
        BackendError: no GPU to measure on.
        ConfigError, OSError, ImportError: something that the user can set right.
        WrongResultError: a result is wrong; no time of its case has been printed.
    """
    runs = {
        "base": _base,
        "targets": _targets,
        "model": _models,
        "quality": _quality,
        "study": _study,
        "frontier": _frontier,
        "pixels": _pixels,
        "table": _table,
        "plot": lambda parsed: _draw(parsed.plot),
    }
    what = next((name for name in runs if getattr(parsed, name)), None)
    if what is None:
        need("bench", "tqdm")
        _parts(parsed)
        return
    for name in _WITHOUT.get(what, ()):
        if getattr(parsed, name):
            raise ConfigError(f"--{name}", getattr(parsed, name), f"has no meaning beside --{what}")
    need(f"bench --{what}", *_NEEDS.get(what, ()))
    runs[what](parsed)


def _parts(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.measure import measured
    from psa_core.apps.bench.unfinished import is_unfinished

    from .op.cases import PARTS
    from .op.parts import benchmark_jobs
    from .op.tables import all_tables

    jobs = benchmark_jobs(parsed.only or PARTS, parsed.cases, parsed.quick)
    _want_some(jobs, parsed)
    kind = [*(parsed.only or ()), *(parsed.cases or ())]
    results, file = measured(jobs, parsed.output, *kind, quick=parsed.quick)
    print(f"{all_tables(results)}\n\nresults are in {file}")
    if not kind and not is_unfinished(file):
        _draw(file)


def _targets(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.measure import measured

    from .target import target_table
    from .targets import TARGETS, target_jobs

    jobs = target_jobs(parsed.cases)
    _want_some(jobs, parsed)
    results, file = measured(jobs, parsed.output, "targets", *(parsed.cases or ()), quick=parsed.quick)
    print(f"{results.caption()}\n\n{target_table(results.rows, TARGETS)}\n\nresults are in {file}")


def _base(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.cases import CASES, chosen_cases
    from psa_core.apps.bench.measure import save_rows
    from psa_core.apps.bench.side_by_side import gpu

    from .base.compare import at, base_table, compare
    from .op.cases import ALL_CASES

    cases = chosen_cases(parsed.cases, ALL_CASES if parsed.cases else CASES)
    name, rows = compare(parsed.base, cases, str(gpu()), parsed.quick)
    kind = "base", name, *(parsed.cases or ())
    results, file = save_rows(rows, parsed.output, *kind, quick=parsed.quick, dense=at(name))
    print(f"{results.caption()}\n\n{base_table(rows, name)}\n\nresults are in {file}")


def _models(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.measure import save_rows
    from psa_core.apps.bench.timing import QUICK

    from .models import MODEL_EFFORT, model_rows
    from .op.tables import all_tables
    from .target import target_table
    from .targets import MODEL_TARGETS

    rows = model_rows(parsed.cases, QUICK if parsed.quick else MODEL_EFFORT)
    _want_some(rows, parsed)
    results, file = save_rows(rows, parsed.output, "model", quick=parsed.quick)
    print(f"{all_tables(results)}\n\n{target_table(rows, MODEL_TARGETS)}\n\nresults are in {file}")


def _quality(parsed: argparse.Namespace) -> None:
    from .quality.measure import run_quality

    print(f"\nresults are in {run_quality(parsed.output)}")


def _study(parsed: argparse.Namespace) -> None:
    from .study.tables import run_study

    for table in run_study():
        print(table + "\n", flush=True)


def _frontier(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.cases import chosen_cases

    from .frontier.heads import QUICK_SOURCES, SOURCES
    from .frontier.measure import DENSITIES, QUICK_DENSITIES, run_frontier
    from .frontier.tables import frontier_tables

    sources, densities = (QUICK_SOURCES, QUICK_DENSITIES) if parsed.quick else (SOURCES, DENSITIES)
    chosen = chosen_cases(parsed.cases, sources, known=SOURCES)
    results, file = run_frontier(chosen, parsed.output, densities, parsed.quick)
    print(f"{frontier_tables(results)}\n\nresults are in {file}")
    if any(row.ratio for row in results.rows):
        _draw(file)


def _pixels(parsed: argparse.Namespace) -> None:
    from .pixels.cases import QUICK_STUDIES, STUDIES, studies_named
    from .pixels.measure import run_pixels
    from .pixels.results import TARGETS, pixel_table
    from .target import target_table

    if parsed.cases:
        rows, file = run_pixels(studies_named(parsed.cases), parsed.output, "some")
    elif parsed.quick:
        rows, file = run_pixels(QUICK_STUDIES, parsed.output, "quick")
    else:
        rows, file = run_pixels(STUDIES, parsed.output)
    print(f"{pixel_table(rows)}\n\n{target_table(rows, TARGETS)}\n\nresults are in {file}")


def _table(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.results import Results

    from .frontier.tables import frontier_tables
    from .op.tables import all_tables

    results = Results.load(parsed.table)
    print(frontier_tables(results) if _of_frontier(results) else all_tables(results))


def _want_some(what: Sequence[object], parsed: argparse.Namespace) -> None:
    """See that the options leave something to measure.

    Raises:
        ConfigError: they do not.
    """
    if not what:
        raise ConfigError("--cases", parsed.cases, "leaves nothing to measure with the other options")


def _draw(file: Path) -> None:
    """Draw the picture of a results file beside it."""
    if importlib.util.find_spec("matplotlib") is None:
        log.warning("no picture: matplotlib is not installed; psa bench --plot %s draws it later", file)
        return
    from psa_core.apps.bench.results import Results

    from .frontier import plot as frontier_plot
    from .op import plot as op_plot

    results, picture = Results.load(file), file.with_suffix(".png")
    (frontier_plot if _of_frontier(results) else op_plot).draw(results, picture)
    print(f"the picture is {picture}")


def _of_frontier(results: Results) -> bool:
    from .frontier.ours import PART

    return any(row.part == PART for row in results.rows)
