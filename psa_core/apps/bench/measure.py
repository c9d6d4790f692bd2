"""One run of the benchmark, from jobs to rows and their file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from .inputs import video_inputs
from .jobs import Job
from .results import Machine, Results, Row, file_stem
from .rivals import CUDNN
from .side_by_side import DTYPE, gpu, side_by_side
from .timing import QUICK, Effort

log = logging.getLogger(__name__)


def run_jobs(jobs: Sequence[Job], quick: bool = False) -> list[Row]:
    """Check and measure every job; when quick, with few calls of each. Ctrl+C ends it with the jobs that are done.

    Raises:
        BackendError: no GPU that can.
        WrongResultError: a result of ours, or of the dense backend, is wrong. Nothing has been printed then.
    """
    device, effort = gpu(), QUICK if quick else Effort()
    rows: list[Row] = []
    progress = tqdm(jobs, unit="case", dynamic_ncols=True)
    for job in progress:
        progress.set_description(f"{job.part}: {job.case.name} ({job.case.tokens:,} tokens)")
        try:
            rows += _run_job(job, device, effort)
        except KeyboardInterrupt:
            if not rows:
                raise
            progress.close()
            log.warning("stopped in %s: %s; what was measured before is kept", job.part, job.case.name)
            break
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
    results = Results(machine, dense, rows)
    file = folder / f"{file_stem(machine.gpu, *kind, *(['quick'] if quick else []))}.json"
    results.save(file)
    return results, file
