"""``psa bench --targets``, ``--model``, ``--quality`` and ``--study``: what they print and write."""

from __future__ import annotations

import argparse

from psa_core.apps.bench.command import need
from psa_core.settings.errors import ConfigError

# What has no meaning beside an option, and the packages that it needs.
_WITHOUT = {
    "targets": ("only", "cases"),
    "model": ("only",),
    "quality": ("only", "cases", "quick"),
    "study": ("only", "cases", "quick"),
}
_NEEDS = {
    "targets": ("tqdm",),
    "model": ("tqdm", "diffusers"),
    "quality": ("tqdm", "diffusers", "transformers", "skimage"),
    "study": ("tqdm", "diffusers", "transformers"),
}


def run(what: str, parsed: argparse.Namespace) -> None:
    """What ``psa bench`` does with one of these options, ``targets``, ``model``, ``quality`` or ``study``.

    Raises:
        BackendError: no GPU to measure on.
        ConfigError, OSError, ImportError: something that the user can set right.
        WrongResultError: a result is wrong; no time has been printed.
    """
    for name in _WITHOUT[what]:
        if getattr(parsed, name):
            raise ConfigError(f"--{name}", getattr(parsed, name), f"has no meaning beside --{what}")
    need(f"psa bench --{what}", *_NEEDS[what])
    {"targets": _targets, "model": _models, "quality": _quality, "study": _study}[what](parsed)


def _targets(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.measure import gpu, run_jobs, save_rows
    from psa_core.apps.bench.timing import QUICK, Effort

    from .targets import TARGETS, target_jobs, target_table

    gpu()
    rows = run_jobs(target_jobs(), QUICK if parsed.quick else Effort())
    results, file = save_rows(rows, parsed.output, "targets", quick=parsed.quick)
    print(f"{results.caption()}\n\n{target_table(rows, TARGETS)}\n\nresults are in {file}")


def _models(parsed: argparse.Namespace) -> None:
    from psa_core.apps.bench.measure import save_rows
    from psa_core.apps.bench.table import tables
    from psa_core.apps.bench.timing import QUICK

    from .models import MODEL_EFFORT, model_rows
    from .targets import MODEL_TARGETS, target_table

    rows = model_rows(parsed.cases, QUICK if parsed.quick else MODEL_EFFORT)
    if not rows:
        raise ConfigError("--cases", parsed.cases, "leaves nothing to measure with the other options")
    results, file = save_rows(rows, parsed.output, "model", quick=parsed.quick)
    print(f"{tables(results)}\n\n{target_table(rows, MODEL_TARGETS)}\n\nresults are in {file}")


def _quality(parsed: argparse.Namespace) -> None:
    from .quality.measure import run_quality

    print(f"\nresults are in {run_quality(parsed.output)}")


def _study(parsed: argparse.Namespace) -> None:
    from .study.tables import run_study

    for table in run_study():
        print(table + "\n", flush=True)
