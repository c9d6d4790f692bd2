"""Contenders side by side on one GPU: each is checked, and then all are timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch

from ...ops.backends import BackendError, triton_refusal
from .checks import judge
from .results import WHOLE_OP, Row
from .rivals import CUDNN
from .timing import Contender, Effort, Timing, measure

DTYPE = torch.bfloat16
OUT_OF_MEMORY = "out of memory"


def gpu(who: str = "psa bench", device: torch.device | None = None, head_dim: int = 128) -> torch.device:
    """The GPU to measure on.

    Args:
        who: what wants one, for the message.
        device: the one to take; None for torch's own.

    Raises:
        BackendError: there is none, or the kernels cannot run on it; a CPU's times would mean nothing.
    """
    if not torch.cuda.is_available():
        raise BackendError(f"{who} needs a CUDA GPU, and torch sees none here")
    device = device or torch.device("cuda", torch.cuda.current_device())
    refusal = triton_refusal(device, DTYPE, head_dim)
    if refusal is not None:
        raise BackendError(f"{who}: {refusal}")
    return device


def side_by_side(
    contenders: Iterable[Contender | Row],
    effort: Effort,
    dense: Sequence[str] = (CUDNN,),
    tick: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Check and time contenders; rows that take no part come last.

    Args:
        contenders: a row is one that takes no part, or is done.
        effort: how much is measured.
        dense: as :func:`with_ratios` takes it.
        tick: called after each contender that is prepared, and after each batch of calls.

    Raises:
        WrongResultError: a result is wrong, and it is not a rival's.
    """
    done: list[Row] = []
    ready: list[Contender] = []
    for contender in contenders:
        row = contender if isinstance(contender, Row) else prepare(contender)
        if isinstance(contender, Row) or row.refusal is not None:
            done.append(row)
        else:
            ready.append(replace(contender, row=row))
        tick()
    timings = measure(ready, effort, tick) if ready else []
    return [*with_ratios([contender.row for contender in ready], timings, dense), *done]


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
        return refused(row, failure)
    return row.replace(error=error)


def refused(row: Row, failure: Exception) -> Row:
    """The row of what takes no part because this was raised."""
    return row.replace(refusal=reason_of(failure))


def reason_of(failure: Exception) -> str:
    """What was raised, in a line."""
    if isinstance(failure, torch.cuda.OutOfMemoryError):
        return OUT_OF_MEMORY
    message = str(failure).strip() or type(failure).__name__
    return message.splitlines()[0][:200]


def with_ratios(rows: Sequence[Row], timings: Sequence[Timing], dense: Sequence[str] = (CUDNN,)) -> list[Row]:
    """The rows with their times, and the dense backend's time by those of whole ops.

    Args:
        dense: names of what may be the dense backend; the first of them that has a row is.
    """
    timed = [row.replace(ms=t.ms, host_ms=t.host_ms) for row, t in zip(rows, timings, strict=True)]
    ms = {row.attention: row.ms for row in timed}
    against = next((ms[name] for name in dense if ms.get(name) is not None), None)
    if against is None:
        return timed
    return [row.replace(ratio=against / row.ms) if row.stage.startswith(WHOLE_OP) and row.ms else row for row in timed]
