"""``psa bench``: its options, and what it prints and writes."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from pathlib import Path

from ...settings.errors import ConfigError
from .cases import PARTS
from .checkout import benchmarks_command

log = logging.getLogger(__name__)

OUTPUT = Path("benchmarks/results")
# Options that run what engineers measure.
_IN_CHECKOUT = ("targets", "model", "quality", "study")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa bench``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--targets", action="store_true", help="in a checkout: every target, met or missed; about a minute on an H200"
    )
    what.add_argument(
        "--model",
        action="store_true",
        help="in a checkout: a forward pass of Wan 1.3B and of CogVideoX1.5, random weights",
    )
    what.add_argument(
        "--quality",
        action="store_true",
        help="in a checkout: PSNR and SSIM of every preset in the tiny model; minutes, on a CPU too",
    )
    what.add_argument(
        "--study",
        action="store_true",
        help="in a checkout: errors of settings at equal density in the tiny model; ten minutes, on a CPU too",
    )
    what.add_argument("--table", type=Path, metavar="JSON", help="print earlier results as Markdown")
    what.add_argument("--plot", type=Path, metavar="JSON", help="draw earlier results, beside their file")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"parts: {', '.join(PARTS)}")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="cases whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help="few calls, few densities, no long clips")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"the folder for results; default: {OUTPUT}")
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa bench`` does.

    Raises:
        BackendError: no GPU to measure on.
        ConfigError, OSError, ImportError: something that the user can set right.
        WrongResultError: a result is wrong; no time has been printed.
    """
    in_checkout = next((name for name in _IN_CHECKOUT if getattr(parsed, name)), None)
    if parsed.table is not None:
        from .results import Results
        from .table import tables

        print(tables(Results.load(parsed.table)))
    elif parsed.plot is not None:
        _draw(parsed.plot)
    elif in_checkout is not None:
        benchmarks_command(f"--{in_checkout}").run(in_checkout, parsed)
    else:
        need("psa bench", "tqdm")
        _measure(parsed)


def need(command: str, *packages: str) -> None:
    """See that the packages of a command are installed.

    Raises:
        ImportError: some are not; the message says how to install them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f'{command} needs {", ".join(missing)}: pip install "pyramid-sparse-attention[bench]"')


def _measure(parsed: argparse.Namespace) -> None:
    from .measure import gpu, run_jobs, save_rows
    from .parts import benchmark_jobs
    from .table import tables
    from .timing import QUICK, Effort

    gpu()
    jobs = benchmark_jobs(parsed.only or PARTS, parsed.cases, parsed.quick)
    rows = run_jobs(jobs, QUICK if parsed.quick else Effort())
    if not rows:
        raise ConfigError("--cases", parsed.cases, "leaves nothing to measure with the other options")
    kind = [*(parsed.only or ()), *(parsed.cases or ())]
    results, file = save_rows(rows, parsed.output, *kind, quick=parsed.quick)
    print(f"{tables(results)}\n\nresults are in {file}")
    if not kind:
        _draw(file)


def _draw(file: Path) -> None:
    """Draw the picture of a results file beside it."""
    if importlib.util.find_spec("matplotlib") is None:
        log.warning("no picture: matplotlib is not installed; psa bench --plot %s draws it later", file)
        return
    from .plot import draw
    from .results import Results

    picture = file.with_suffix(".png")
    draw(Results.load(file), picture)
    print(f"the picture is {picture}")
