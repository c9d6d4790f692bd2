"""Time on a GPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from .results import Row


@dataclass(frozen=True)
class Contender:
    """Something to measure.

    Attributes:
        row: what it is; the measured numbers are filled in.
        call: one call, which must not wait for the GPU.
        context: entered around calls.
        error: runs one call and returns its relative error; None where there is nothing to compare.
        bound: the error from which the result is wrong.
        rival: not ours: one that fails or is wrong becomes a row that says so.
    """

    row: Row
    call: Callable[[], Any]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    error: Callable[[], float] | None = field(default=None, repr=False)
    bound: float = 1e-2
    rival: bool = False


class Effort(NamedTuple):
    """How much is measured: ``rounds`` over all contenders, in each ``least`` calls or as many as fill ``batch_ms``.

    No round but the first begins after this many ``seconds``.
    """

    rounds: int = 3
    least: int = 2
    batch_ms: float = 60.0
    seconds: float = math.inf


QUICK = Effort(rounds=1, least=3, batch_ms=10.0)
_MOST_CALLS = 20


class Timing(NamedTuple):
    """Medians, in milliseconds.

    Attributes:
        ms: of one call on the GPU, back to back with calls of its kind.
        host_ms: until one call has been launched.
    """

    ms: float
    host_ms: float


def measure(contenders: Sequence[Contender], effort: Effort, tick: Callable[[], None] = lambda: None) -> list[Timing]:
    """Time each contender, all of them in turn in every round, so that clocks and heat weigh on all alike.

    The calls of a batch follow each other without a wait of the host, so launches overlap with work as they do in a
    model; the first one of a batch, which nothing precedes, does not count. Every contender has run before.
    ``tick`` is called after each batch.
    """
    end = time.monotonic() + effort.seconds
    counts = []
    for contender in contenders:
        (once, *_), _ = _batch(contender, 1)
        counts.append(min(_MOST_CALLS, max(effort.least, round(effort.batch_ms / once))))
        tick()
    times: list[list[float]] = [[] for _ in contenders]
    host: list[list[float]] = [[] for _ in contenders]
    for done in range(effort.rounds):
        if done and time.monotonic() > end:
            break
        for i, contender in enumerate(contenders):
            on_gpu, launched = _batch(contender, counts[i])
            times[i] += on_gpu
            host[i].append(launched)
            tick()
    return [Timing(statistics.median(a), statistics.median(b)) for a, b in zip(times, host, strict=True)]


def _batch(contender: Contender, calls: int) -> tuple[list[float], float]:
    """Milliseconds of each of some calls on the GPU, and of launching one, after one more that does not count."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    with contender.context():
        contender.call()
        events[0].record()
        start = time.perf_counter()
        for event in events[1:]:
            contender.call()
            event.record()
        launched = (time.perf_counter() - start) * 1e3 / calls
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in pairwise(events)], launched
