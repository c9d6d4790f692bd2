"""``psa bench``: its options, and what it prints and writes away from a checkout."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..packages import need
from .checkout import benchmarks_command, in_checkout

OUTPUT = Path("benchmarks/results")
_SWITCHES = {
    "targets": "every target, met or missed; minutes",
    "model": "a forward pass of Wan 1.3B and of CogVideoX1.5, random weights",
    "quality": "PSNR and SSIM of every preset in the tiny model; minutes, on a CPU too",
    "frontier": "error against time of calibrated attention, fixed recipes and rivals; minutes",
    "pixels": "whole clips of the tiny model with calibrated attention, fixed recipes and Sol-Attn; minutes",
    "study": "errors of settings at equal density in the tiny model; ten minutes, on a CPU too",
}
_BASE = "times another commit of the repository beside this checkout, in turns; REF as git knows it"
_FILES = {
    "table": "print earlier results as Markdown",
    "plot": "draw earlier results, beside their file",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa bench``."""
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="cases whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help="few calls, few densities, no long clips")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the folder for results; default: {OUTPUT}")
    checkout = parser.add_argument_group(
        "in a checkout of the repository",
        "What engineers measure. Without these, a checkout's psa bench runs all its parts and draws the results.",
    )
    checkout.add_argument("--only", nargs="+", metavar="PART", help="some of the parts")
    what = checkout.add_mutually_exclusive_group()
    for name, does in _SWITCHES.items():
        what.add_argument(f"--{name}", action="store_true", help=does)
    what.add_argument("--base", metavar="REF", help=_BASE)
    for name, does in _FILES.items():
        what.add_argument(f"--{name}", type=Path, metavar="JSON", help=does)
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa bench`` does.

    Raises:
        BackendError: no GPU to measure on.
        ConfigError, OSError, ImportError: something that the user can set right.
        WrongResultError: a result is wrong; no time of its case has been printed.
    """
    if in_checkout():
        benchmarks_command().run(parsed)
        return
    for name in (*_SWITCHES, *_FILES, "base", "only"):
        if getattr(parsed, name):
            raise ImportError(f"psa bench --{name} needs a checkout of the repository, with benchmarks/ in it")
    need("bench", "tqdm")
    _measure(parsed)


def _measure(parsed: argparse.Namespace) -> None:
    from .jobs import op_jobs
    from .measure import measured
    from .table import tables

    jobs = op_jobs(parsed.cases, parsed.quick)
    results, file = measured(jobs, parsed.output, *(parsed.cases or ()), quick=parsed.quick)
    print(f"{tables(results)}\n\nresults are in {file}")
