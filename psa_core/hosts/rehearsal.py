"""Compiling the kernels of a run beside its first, dense steps, which leave the CPU with little to do.

A few calls of what the run will do, on a short clip of noise, in a thread and on a stream of their own. Kernels are not
compiled anew for another number of tokens, so that the first sparse step finds all of them.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from ..settings.config import PSAConfig
from .kept import Kept
from .place import Place

log = logging.getLogger(__name__)

# Enough tokens for every query block that calibration measures on; heads, because kernels are compiled for one apart.
_GRID, _HEADS = (4, 16, 32), 2
# What is captured into a CUDA graph in one thread breaks when another one asks the driver for memory.
_CUDA_GRAPHS = "torch._inductor.cudagraph_trees"

_threads: dict[Hashable, threading.Thread] = {}
_lock = threading.Lock()


def begin(key: Hashable, q: torch.Tensor, config: PSAConfig, backend: str = "auto") -> None:
    """Have the kernels of a call compiled, once in this process; returns at once.

    Args:
        key: all that decides which kernels they are.
        q: ``[B, H, L, D]``, of whose device, dtype, head size and layout they are.
        config: settings of a sparse step.
    """
    with _lock:
        if key in _threads or _CUDA_GRAPHS in sys.modules:
            return
        strides = [q.stride(axis) for axis in range(4)]
        clip = _Clip(q.device, q.dtype, q.shape[-1], sorted(range(4), key=strides.__getitem__, reverse=True))
        arguments = clip, config, backend
        _threads[key] = threading.Thread(target=_rehearse, args=arguments, name="PSA rehearsal", daemon=True)
        _threads[key].start()


def is_under_way(key: Hashable) -> bool:
    """Whether kernels are being compiled."""
    thread = _threads.get(key)
    return thread is not None and thread.is_alive()


def wait(key: Hashable) -> None:
    """Return when the kernels have been compiled, if they are being."""
    thread = _threads.get(key)
    if thread is not None:
        thread.join()


class _Clip(NamedTuple):
    """What noise is like; ``layout`` has the axes of ``[B, H, L, D]`` as they lie in memory, the farthest apart
    first."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    layout: list[int]

    def noise(self, generator: torch.Generator) -> torch.Tensor:
        sizes = 1, _HEADS, math.prod(_GRID), self.head_dim
        as_it_lies = [sizes[axis] for axis in self.layout]
        noise = torch.randn(as_it_lies, generator=generator, dtype=self.dtype, device=self.device)
        return noise.permute([self.layout.index(axis) for axis in range(4)])


def _rehearse(clip: _Clip, config: PSAConfig, backend: str) -> None:
    try:
        with torch.no_grad(), _stream_of_its_own(clip.device):
            _run(clip, config.replace(radial=None, text_length=0), backend)
    # Whatever it is: the run itself meets it again, where it can be told.
    except Exception as error:
        log.debug("PSA: kernels could not be compiled ahead: %s", error)


@contextmanager
def _stream_of_its_own(device: torch.device) -> Iterator[None]:
    # Of high priority: beside the model's own calls, which fill the GPU, the short ones would wait for their ends.
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device, priority=-1)):
        yield


def _run(clip: _Clip, config: PSAConfig, backend: str) -> None:
    # Of its own, so that the run's noise stays what it is.
    generator = torch.Generator(clip.device).manual_seed(0)
    q, k, v = (clip.noise(generator) for _ in range(3))
    kept = Kept()
    # A step that chooses and makes a map, one that has both, and the last one, which measures again.
    for step in range(3):
        kept.attend(q, k, v, config, Place(step, 0, _GRID, steps=3), backend, last=step == 2)
