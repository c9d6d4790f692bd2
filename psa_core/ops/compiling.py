"""Kernels compiled side by side before they are launched.

Triton compiles a kernel where it is first launched, and a first call would wait for one after another.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from .triton_version import triton_version

# Threads may compile at the same time from this release of Triton on.
_SIDE_BY_SIDE = (3, 5)
_MOST_THREADS = 16

_thread = threading.local()


# Multiplications and additions in one instruction, which Triton makes on request only from 3.10 on.
OPTIONS = {"enable_fp_fusion": True}


def launcher(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """``kernel[grid]``; inside of :func:`compiling_ahead` what has the kernel compiled for its arguments instead."""
    compiler = getattr(_thread, "compiler", None)
    launch = kernel[grid] if compiler is None else partial(compiler.compile, kernel, grid)
    return partial(launch, **OPTIONS)


def compiles_ahead() -> bool:
    """Whether launches of this thread are compiled and not run."""
    return getattr(_thread, "compiler", None) is not None


def compiles_side_by_side() -> bool:
    """Whether several of them are compiled at the same time, so that another one costs little."""
    compiler = getattr(_thread, "compiler", None)
    return compiler is not None and compiler.threads > 1


@contextmanager
def compiling_ahead() -> Iterator[None]:
    """Compile what this thread launches, side by side, and run none of it; the block ends when all is compiled.

    Outputs of kernels stay what memory held, so that results mean nothing. A kernel that does not compile is passed
    over: whoever launches it is told.
    """
    threads = _threads()
    with ThreadPoolExecutor(threads, "PSA compiling") as pool:
        _thread.compiler = _Compiler(pool, threads)
        try:
            yield
        finally:
            _thread.compiler = None


def _threads() -> int:
    return min(os.cpu_count() or 1, _MOST_THREADS) if triton_version() >= _SIDE_BY_SIDE else 1


class _Compiler:
    """Kernels on their way; those that may be the same one follow each other, so that it is compiled once."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self.threads = threads
        self._pool = pool
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[Callable[[], None]]] = {}

    def compile(self, kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        job = partial(_compile, torch.cuda.current_device(), kernel, grid, args, options)
        key = kernel, frozenset(options.items())
        with self._lock:
            if key in self._waiting:
                self._waiting[key].append(job)
                return
            self._waiting[key] = deque([job])
        self._pool.submit(self._work, key)

    def _work(self, key: Hashable) -> None:
        while True:
            with self._lock:
                if not self._waiting[key]:
                    del self._waiting[key]
                    return
                job = self._waiting[key].popleft()
            with suppress(Exception):
                job()


def _compile(device: int, kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    # Threads begin on the first device.
    with torch.cuda.device(device):
        compiled = kernel.warmup(*args, grid=grid, **options)
        # Triton makes what launches it, which a C compiler takes half a second for, when that is asked for.
        getattr(compiled, "run", None)
