"""Synthetic queries, keys and values with locality in space and time."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from ...settings.sizes import Grid
from .cases import Case

# From diffuse heads to sharp ones: the logit between a token and itself, before noise, and how far (as a share of each
# extent of the grid) it reaches.
_SELF_LOGIT = (4.0, 14.0)
_REACH = (0.25, 0.05)
_NOISE = 0.5


class Inputs(NamedTuple):
    """q, k and v ``[1, H, L, D]`` with the strides that models give them: views of ``[1, L, H, D]``."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


def video_inputs(case: Case, device: torch.device, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Inputs:
    """Smooth fields over the grid plus noise, so that tokens attend to their neighbours.

    Queries and keys hold random Fourier features of their token's place: their product falls with distance like a bell
    curve. Heads range from diffuse to sharp, and within a head sharpness drifts over the grid, so that under
    ``thresholdbound`` rows keep different numbers of blocks. Text tokens are noise. Same seed, same numbers; torch's
    random state is left alone.
    """
    generator = torch.Generator(device).manual_seed(seed)
    shape = (1, case.tokens, case.heads, case.head_dim)
    q, k, v = (torch.empty(shape, device=device, dtype=dtype) for _ in range(3))
    places = _places(case.grid, device)
    for head in range(case.heads):
        mix = head / max(1, case.heads - 1)
        reach = _REACH[0] + (_REACH[1] - _REACH[0]) * mix
        self_logit = _SELF_LOGIT[0] + (_SELF_LOGIT[1] - _SELF_LOGIT[0]) * mix
        scale = math.sqrt(self_logit) / case.head_dim**0.25
        field = _fourier_features(places, case.head_dim, reach, generator)
        sharpness = 1 + 0.5 * _fourier_features(places, 1, 0.5, generator) / math.sqrt(2)
        for x, video in ((q, scale * sharpness * field), (k, scale * field), (v, field.roll(1, 1))):
            noise = torch.randn(case.tokens, case.head_dim, generator=generator, device=device)
            noise[case.text_length :] *= _NOISE
            noise[case.text_length :] += video
            x[0, :, head] = noise
    return Inputs(*(x.transpose(1, 2) for x in (q, k, v)))


def _places(grid: Grid, device: torch.device) -> torch.Tensor:
    """Where each video token lies, ``[frames * height * width, 3]``, each extent of the grid from 0 to 1."""
    axes = [torch.linspace(0, 1, extent, device=device) for extent in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)


def _fourier_features(places: torch.Tensor, count: int, reach: float, generator: torch.Generator) -> torch.Tensor:
    """Random cosines ``[tokens, count]`` of mean square 1; ``reach`` is the standard deviation of their kernel."""
    options: Any = {"generator": generator, "device": places.device}
    waves = torch.randn(3, count, **options) / reach
    phases = 2 * math.pi * torch.rand(count, **options)
    return math.sqrt(2) * torch.cos(places @ waves + phases)
