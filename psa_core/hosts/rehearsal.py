"""Compiling the kernels of a run, all of them side by side, before the first of them is called.

What the run will do is gone through on a short clip of noise, whose kernels are compiled and not launched. No number of
tokens has kernels of its own but for those that select levels, and they are compiled for all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch

from ..attention.call import pyramid_sparse_attention
from ..ops.backends import triton_installed
from ..ops.compiling import compiling_ahead
from ..settings.config import PSAConfig
from ..settings.sinks import text_in_front
from .kept import Kept
from .place import Place

log = logging.getLogger(__name__)

# Enough tokens for every query block that calibration measures on; heads, because kernels are compiled for one apart.
_GRID, _TEXT, _HEADS = (4, 16, 32), 64, 2


def rehearse(q: torch.Tensor, config: PSAConfig, backend: str = "auto", sinks: bool = False) -> None:
    """Have the kernels compiled that calls with these settings launch.

    Args:
        q: ``[B, H, L, D]``, whose device, dtype, head size and layout in memory they have.
        config: settings of a sparse step.
        backend: as in :class:`~psa_core.hosts.run.Run`.
        sinks: whether there are tokens beside the video.
    """
    _compile(lambda: _go_through(q, config, backend, _TEXT if sinks else 0))


def rehearse_prompt(q: torch.Tensor, group: int, config: PSAConfig, backend: str = "auto") -> None:
    """The same for a causal call, whose heads of queries share one of keys, ``group`` of them each."""
    _compile(lambda: _read_prompt(q, group, config, backend))


def _compile(run: Callable[[], None]) -> None:
    if not triton_installed():
        return
    try:
        with torch.no_grad(), compiling_ahead():
            run()
    # Whatever it is: the run itself meets it again, where it can be told.
    except Exception as error:
        log.debug("PSA: kernels could not be compiled ahead: %s", error)


def _read_prompt(q: torch.Tensor, group: int, config: PSAConfig, backend: str) -> None:
    tokens, heads = math.prod(_GRID), (_HEADS * group, _HEADS, _HEADS)
    query, k, v = (_noise(q, seed, tokens, heads[seed]) for seed in range(3))
    pyramid_sparse_attention(query, k, v, config, backend=backend, causal=True)


def _go_through(q: torch.Tensor, config: PSAConfig, backend: str, text: int) -> None:
    query, k, v = (_noise(q, seed, text + math.prod(_GRID)) for seed in range(3))
    kept = Kept()
    # A step that chooses and makes a map, one that has both, and the last one, which measures again.
    for step in range(3):
        place = Place(step, 0, _GRID, text_in_front(text), steps=3)
        kept.attend(query, k, v, config.replace(text_length=text), place, backend, last=step == 2)


def _noise(q: torch.Tensor, seed: int, tokens: int, heads: int = _HEADS) -> torch.Tensor:
    # Of a generator of its own, so that the run's noise stays what it is.
    generator = torch.Generator(q.device).manual_seed(seed)
    farthest_first = sorted(range(4), key=q.stride, reverse=True)
    sizes = (1, heads, tokens, q.shape[-1])
    as_it_lies = [sizes[axis] for axis in farthest_first]
    noise = torch.randn(as_it_lies, generator=generator, dtype=q.dtype, device=q.device)
    return noise.permute([farthest_first.index(axis) for axis in range(4)])
