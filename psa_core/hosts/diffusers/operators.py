"""What a compiled graph must decide when it runs, not when it is traced, as operators that it keeps whole.

Steps, counts and the choice between sparse and dense change from call to call. Operators take tensors, so they know
objects by number, and the number comes in a tensor: as a constant it would make a graph of every layer. The settings of
:mod:`psa_core.attention.operator` are the opposite case: the shapes of its results depend on them, and a graph that is
kept on disk means nothing by a number of another process, so they come as text, a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Optional
from weakref import WeakValueDictionary

import torch

from ...settings.sinks import Sink
from ..operators import NAMESPACE, OPTIONS
from .families import Inputs, Tokens

_numbers = count()
_objects: WeakValueDictionary[int, Any] = WeakValueDictionary()


def number_of(x: Any) -> torch.Tensor:
    """A new number for an object, by which operators find it as long as it lives."""
    number = next(_numbers)
    _objects[number] = x
    with torch.inference_mode(False):
        return torch.tensor([number], device="cpu")


# Operators that return nothing say that they change a denoising's number, and ``attend`` reads it: so they are kept, in
# their order. Types are spelled as operators need them.


@torch.library.custom_op(f"{NAMESPACE}::diffusers_enter", mutates_args=("denoising",), **OPTIONS)
def enter(
    denoising: torch.Tensor,
    timestep: torch.Tensor,
    latents: torch.Tensor,
    grid: Sequence[int],
    frames_per_token: int,
    front: Sequence[int],
    text_behind: bool,
    grid_optional: bool,
    unpadded: Optional[torch.Tensor],  # noqa: UP045
    leading: Optional[torch.Tensor],  # noqa: UP045
) -> None:
    """``Denoising.enter``, of inputs as :func:`flat` has them."""
    found = _objects.get(int(denoising))
    if found is not None:
        sinks = tuple(Sink(start, stop, bool(dense)) for start, stop, dense in zip(*[iter(front)] * 3, strict=True))
        size = (grid[0], grid[1], grid[2]) if grid else None
        tokens = Tokens(size, frames_per_token, sinks, text_behind, grid_optional, unpadded, leading)
        found.enter(Inputs(timestep, latents, tokens))


def flat(inputs: Inputs) -> tuple[Any, ...]:
    """What ``enter`` takes of inputs, in what operators can take."""
    grid, frames_per_token, front, *others = inputs.tokens
    numbers = [int(x) for sink in front for x in sink]
    return inputs.timestep, inputs.latents, list(grid or ()), frames_per_token, numbers, *others


@torch.library.custom_op(f"{NAMESPACE}::diffusers_stay_dense", mutates_args=("denoising",), **OPTIONS)
def stay_dense(denoising: torch.Tensor, reason: str) -> None:
    """``Denoising.stay_dense``."""
    found = _objects.get(int(denoising))
    if found is not None:
        found.stay_dense(reason)


@torch.library.custom_op(f"{NAMESPACE}::diffusers_attend", mutates_args=(), **OPTIONS)
def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045
    scale: Optional[float],  # noqa: UP045
    backend: Optional[str],  # noqa: UP045
    layer: torch.Tensor,
    denoising: torch.Tensor,
) -> torch.Tensor:
    """``Layer.attend``, with heads inside tokens in memory."""
    out = _objects[int(layer)].attend(q, k, v, mask, scale, backend)
    return out.transpose(1, 2).contiguous().transpose(1, 2)


@attend.register_fake
def _shape(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    backend: str | None,
    layer: torch.Tensor,
    denoising: torch.Tensor,
) -> torch.Tensor:
    batch, heads, tokens, d = q.shape
    return q.new_empty((batch, tokens, heads, d)).transpose(1, 2)
