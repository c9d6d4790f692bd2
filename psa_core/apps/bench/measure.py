"""One run of the benchmark, from jobs to rows and their file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from ...ops.backends import BackendError, triton_refusal
from .checks import judge
from .inputs import video_inputs
from .jobs import Job
from .results import WHOLE_OP, Machine, Results, Row, file_stem
from .rivals import CUDNN
from .timing import QUICK, Contender, Effort, Timing, measure

_DTYPE = torch.bfloat16


def gpu() -> torch.device:
    """The GPU to measure on.

    Raises:
        BackendError: there is none, or the kernels cannot run on it; a CPU's times would mean nothing.
    """
    if not torch.cuda.is_available():
        raise BackendError("psa bench needs a CUDA GPU, and torch sees none here")
    device = torch.device("cuda", torch.cuda.current_device())
    refusal = triton_refusal(device, _DTYPE, 128)
    if refusal is not None:
        raise BackendError(f"psa bench: {refusal}")
    return device


def run_jobs(jobs: Sequence[Job], quick: bool = False) -> list[Row]:
    """Check and measure every job; when quick, with few calls of each.

    Raises:
        BackendError: no GPU that can.
        WrongResultError: a result of ours, or of the dense backend, is wrong. Nothing has been printed then.
    """
    device, effort = gpu(), QUICK if quick else Effort()
    rows: list[Row] = []
    progress = tqdm(jobs, unit="case", dynamic_ncols=True)
    for job in progress:
        progress.set_description(f"{job.part}: {job.case.name} ({job.case.tokens:,} tokens)")
        inputs = video_inputs(job.case, device, _DTYPE)
        rows += _measure_side_by_side(job.contenders(job.part, job.case, inputs), effort)
        del inputs
        torch.cuda.empty_cache()
    return rows


def save_rows(rows: Sequence[Row], folder: Path, *kind: str, quick: bool = False) -> tuple[Results, Path]:
    """Keep the rows of a run on this machine.

    Args:
        folder: where results lie by GPU.
        kind: what the run was, in words for the file's name; none for all of it.
        quick: whether it was a quick one.

    Returns:
        The results, and the file written.
    """
    machine = Machine.here()
    results = Results(machine, CUDNN, rows)
    file = folder / f"{file_stem(machine.gpu, *kind, *(['quick'] if quick else []))}.json"
    results.save(file)
    return results, file


def _measure_side_by_side(contenders: Iterable[Contender | Row], effort: Effort) -> list[Row]:
    done: list[Row] = []
    ready: list[Contender] = []
    for contender in contenders:
        row = contender if isinstance(contender, Row) else prepare(contender)
        if isinstance(contender, Row) or row.refusal is not None:
            done.append(row)
        else:
            ready.append(replace(contender, row=row))
    timings = measure(ready, effort) if ready else []
    return [*with_ratios([contender.row for contender in ready], timings), *done]


def prepare(contender: Contender) -> Row:
    """Warm a contender up and check its result; its row with the error, or with the reason of a rival's refusal.

    Raises:
        WrongResultError: the result is wrong, and it is not a rival's.
    """
    row = contender.row
    try:
        with contender.context():
            if contender.error is None:
                contender.call()
                return row
            error = contender.error()
            judge(f"{row.attention}, {row.case}, {row.tokens} tokens", error, contender.bound)
    # What a rival raises is its own affair: no kernel for the shape, no memory, a compiler that is missing.
    except Exception as failure:
        if not contender.rival:
            raise
        message = str(failure).strip() or type(failure).__name__
        return row.replace(refusal=message.splitlines()[0][:200])
    return row.replace(error=error)


def with_ratios(rows: Sequence[Row], timings: Sequence[Timing]) -> list[Row]:
    """The rows with their times, and the dense backend's time by those of whole ops."""
    timed = [row.replace(ms=t.ms, host_ms=t.host_ms) for row, t in zip(rows, timings, strict=True)]
    dense = next((row.ms for row in timed if row.attention == CUDNN), None)
    if dense is None:
        return timed
    return [row.replace(ratio=dense / row.ms) if row.stage.startswith(WHOLE_OP) and row.ms else row for row in timed]
