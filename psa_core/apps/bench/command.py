"""``psa bench``: its options, and what it prints and writes."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from pathlib import Path

from ...settings.errors import ConfigError
from .cases import PARTS

log = logging.getLogger(__name__)

OUTPUT = Path("benchmarks/results")
_NEEDS = {
    "tqdm": "psa bench",
    "diffusers": "psa bench with models",
    "transformers": "psa bench with the tiny model",
    "skimage": "psa bench --quality",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa bench``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--targets", action="store_true", help="every target, met or missed; about a minute on an H200")
    what.add_argument(
        "--model", action="store_true", help="a forward pass of Wan 1.3B and of CogVideoX1.5, random weights"
    )
    what.add_argument(
        "--quality",
        action="store_true",
        help="PSNR and SSIM of every preset against dense attention in the tiny model; minutes, on a CPU too",
    )
    what.add_argument(
        "--study",
        action="store_true",
        help="errors of settings at equal density in the tiny model, as Markdown; ten minutes, on a CPU too",
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
    if parsed.table is not None:
        from .results import Results
        from .table import tables

        print(tables(Results.load(parsed.table)))
    elif parsed.plot is not None:
        _draw(parsed.plot)
    elif parsed.quality or parsed.study:
        _tiny_model(parsed)
    else:
        if (parsed.targets or parsed.model) and parsed.only:
            raise ConfigError("--only", parsed.only, "has no meaning beside --targets or --model")
        if parsed.targets and parsed.cases:
            raise ConfigError("--cases", parsed.cases, "has no meaning beside --targets")
        _need("tqdm")
        _measure(parsed)


def _tiny_model(parsed: argparse.Namespace) -> None:
    option = "--quality" if parsed.quality else "--study"
    for name in ("only", "cases", "quick"):
        if getattr(parsed, name):
            raise ConfigError(f"--{name}", getattr(parsed, name), f"has no meaning beside {option}")
    for package in ("tqdm", "diffusers", "transformers", *(("skimage",) if parsed.quality else ())):
        _need(package)
    if parsed.study:
        from .study.run import run_study

        for table in run_study():
            print(table + "\n", flush=True)
    else:
        from .quality.run import run_quality

        print(f"\nresults are in {run_quality(parsed.output)}")


def _measure(parsed: argparse.Namespace) -> None:
    from .parts import benchmark_jobs, target_jobs
    from .results import Machine, Results, file_stem
    from .rivals import CUDNN
    from .run import gpu, run_jobs
    from .table import tables
    from .targets import MODEL_TARGETS, TARGETS, target_table
    from .timing import QUICK, Effort

    gpu()
    effort = QUICK if parsed.quick else Effort()
    if parsed.model:
        _need("diffusers")
        from .model import MODEL_EFFORT, model_rows

        rows, kind = model_rows(parsed.cases, QUICK if parsed.quick else MODEL_EFFORT), ["model"]
    elif parsed.targets:
        rows, kind = run_jobs(target_jobs(), effort), ["targets"]
    else:
        rows = run_jobs(benchmark_jobs(parsed.only or PARTS, parsed.cases, parsed.quick), effort)
        kind = [*(parsed.only or ()), *(parsed.cases or ())]
    if not rows:
        raise ConfigError("--cases", parsed.cases, "leaves nothing to measure with the other options")
    machine = Machine.here()
    results = Results(machine, CUDNN, rows)
    file = parsed.output / f"{file_stem(machine.gpu, *kind, *(['quick'] if parsed.quick else []))}.json"
    results.save(file)
    targets = {"model": MODEL_TARGETS, "targets": TARGETS}.get(kind[0] if kind else "")
    print(results.caption() if parsed.targets else tables(results))
    if targets:
        print("\n" + target_table(rows, targets))
    print(f"\nresults are in {file}")
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


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{_NEEDS[package]} needs {package}: pip install "pyramid-sparse-attention[bench]"')
