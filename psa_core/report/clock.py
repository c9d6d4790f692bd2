"""Time spent in named parts of a run, measured without waiting for a GPU."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch

# Measurements that may be under way on GPUs before those that have ended are summed up.
_MOST_PENDING = 256

_Events = tuple[torch.cuda.Event, torch.cuda.Event]


class Clock:
    """Sums up seconds by name.

    On a GPU work is only queued when a call returns, so two events are queued around it and read later; the GPU runs
    on meanwhile, and a call costs a few microseconds. On the CPU the time that passes is the time it takes. Devices
    that are neither are not measured. Threads may measure at the same time; their times add up.

    Args:
        now: tells the time, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds: dict[Hashable, float] = {}
        self._pending: deque[tuple[Hashable, torch.device, _Events]] = deque()
        self._spare: dict[torch.device, list[_Events]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, dict[Hashable, float]]:
        """A clock goes to other processes as what it has measured. Waits for the GPU."""
        return {"_seconds": self.seconds()}

    def __setstate__(self, state: dict[str, dict[Hashable, float]]) -> None:
        self.__init__()  # type: ignore[misc]
        self._seconds = state["_seconds"]

    @contextmanager
    def measure(self, name: Hashable, device: torch.device) -> Iterator[None]:
        """Measure what is run on a device inside the ``with``; not counted where that raises."""
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device)
            start, end = self._events(device)
            start.record(stream)
            yield
            end.record(stream)
            with self._lock:
                self._pending.append((name, device, (start, end)))
                if len(self._pending) > _MOST_PENDING:
                    self._collect(wait=False)
        elif device.type == "cpu":
            begun = self._now()
            yield
            took = self._now() - begun
            with self._lock:
                self._add(name, took)
        else:
            yield

    def seconds(self) -> dict[Hashable, float]:
        """What was measured, by name. Waits for the GPU."""
        with self._lock:
            self._collect(wait=True)
            return dict(self._seconds)

    def take_over(self, other: Clock) -> None:
        """Add what another clock has measured. Waits for the GPU."""
        seconds = other.seconds()
        with self._lock:
            for name, took in seconds.items():
                self._add(name, took)

    def _events(self, device: torch.device) -> _Events:
        with self._lock:
            spare = self._spare.get(device)
            if spare:
                return spare.pop()
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def _collect(self, wait: bool) -> None:
        """Sum up the oldest measurements, all of them or those that have ended, and keep their events for others."""
        while self._pending:
            name, device, (start, end) = self._pending[0]
            if wait:
                end.synchronize()
            elif not end.query():
                return
            self._pending.popleft()
            self._add(name, start.elapsed_time(end) / 1000)
            self._spare.setdefault(device, []).append((start, end))

    def _add(self, name: Hashable, took: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + took
