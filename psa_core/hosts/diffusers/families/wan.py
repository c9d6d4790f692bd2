"""Wan 2.1 and 2.2 and what has their blocks: the video alone in self-attention, text and picture in calls of their own.

| model | tokens of self-attention |
|---|---|
| Wan, SkyReels-V2, ChronoEdit | video |
| VACE | video, its references the first frames; its own blocks are numbered behind the model's |
| Animate | video, its reference the first frame |

SkyReels-V2 that forces diffusion block by block masks what is later.
"""

from __future__ import annotations

from typing import Any

import torch

from ...references import leading_frames
from .family import Family, Inputs, Tokens, grid_of

_FRAMES_PER_LATENT = 4


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents, patch_size = call["hidden_states"], transformer.config.patch_size
    tokens = Tokens(grid_of(latents.shape[2:], patch_size), _FRAMES_PER_LATENT * patch_size[0])
    return Inputs(torch.as_tensor(call["timestep"]), latents, tokens)


def _vace_inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    inputs, control = _inputs(transformer, call), call.get("control_hidden_states")
    if control is None:
        return inputs
    channels = transformer.config.in_channels
    leading = leading_frames(control, control[:, 2 * channels :], control.new_zeros(1, channels, 1, 1, 1))
    return inputs._replace(tokens=inputs.tokens._replace(leading=leading))


def _animate_inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    inputs = _inputs(transformer, call)
    return inputs._replace(tokens=inputs.tokens._replace(leading=torch.ones((), dtype=torch.int64)))


_BLOCKS = "blocks.*.attn1"

WAN = Family((_BLOCKS,), _inputs)
WAN_VACE = Family((_BLOCKS, "vace_blocks.*.attn1"), _vace_inputs)
WAN_ANIMATE = Family((_BLOCKS,), _animate_inputs)
