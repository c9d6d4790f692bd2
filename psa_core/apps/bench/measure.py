"""One run of the benchmark, from jobs to rows and their file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from .inputs import video_inputs
from .jobs import Job
from .results import Machine, Results, Row, file_stem
from .rivals import CUDNN
from .side_by_side import DTYPE, gpu, side_by_side
from .table import lines_of_case
from .timing import QUICK, Effort
from .unfinished import Unfinished

log = logging.getLogger(__name__)


def measured(jobs: Sequence[Job], folder: Path, *kind: str, quick: bool = False) -> tuple[Results, Path]:
    """Check and measure every job, and keep the rows of each as soon as there are any.

    A run that was cut off is gone on from where it stopped. Ctrl+C ends one with the jobs that are done.

    Args:
        folder, kind, quick: as in :func:`save_rows`; when quick, there are few calls of each.

    Returns:
        The results, and the file that they are in.

    Raises:
        BackendError: no GPU that can.
        WrongResultError: a result of ours, or of the dense backend, is wrong. No time of its case has been printed.
    """
    machine = Machine.here()
    unfinished = Unfinished(_file(machine, folder, kind, quick), machine, CUDNN)
    try:
        rows = run_jobs(jobs, quick, unfinished)
    except KeyboardInterrupt:
        if not unfinished.rows:
            raise
        log.warning("stopped; the same command goes on from what was measured before")
        return unfinished.results(), unfinished.file
    results, file = save_rows(rows, folder, *kind, quick=quick)
    unfinished.remove()
    return results, file


def run_jobs(jobs: Sequence[Job], quick: bool, unfinished: Unfinished) -> list[Row]:
    """The rows of all jobs, those that are done already and the others', each of which is printed and kept.

    Errors: as in :func:`measured`.
    """
    device, effort = gpu(), QUICK if quick else Effort()
    rows: list[Row] = []
    for job in (progress := tqdm(jobs, unit="case", dynamic_ncols=True)):
        progress.set_description(f"{job.part}: {job.case.name} ({job.case.tokens:,} tokens)")
        found = unfinished.rows_of(job)
        if not found:
            found = job.finish(_run_job(job, device, effort))
            unfinished.add(found)
            # At once, for a run that is cut off.
            progress.write(lines_of_case(found))
            sys.stdout.flush()
        rows += found
    return rows


def _run_job(job: Job, device: torch.device, effort: Effort) -> list[Row]:
    inputs = video_inputs(job.case, device, DTYPE)
    try:
        return side_by_side(job.contenders(job.part, job.case, inputs), effort)
    finally:
        del inputs
        torch.cuda.empty_cache()


def save_rows(
    rows: Sequence[Row], folder: Path, *kind: str, quick: bool = False, dense: str = CUDNN
) -> tuple[Results, Path]:
    """Keep the rows of a run on this machine.

    Args:
        folder: where results lie by GPU.
        kind: what the run was, in words for the file's name; none for all of it.
        quick: whether it was a quick one.
        dense: what ratios are against.

    Returns:
        The results, and the file written.
    """
    machine = Machine.here()
    results, file = Results(machine, dense, rows), _file(machine, folder, kind, quick)
    results.save(file)
    return results, file


def _file(machine: Machine, folder: Path, kind: Sequence[str], quick: bool) -> Path:
    return folder / f"{file_stem(machine.gpu, *kind, *(['quick'] if quick else []))}.json"
