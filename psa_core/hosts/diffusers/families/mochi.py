"""Mochi: joint attention, the video first and then its text, without padding, in a call for each video of a batch."""

from __future__ import annotations

from typing import Any

import torch

from .family import Family, Inputs, Tokens, grid_of


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents, patch = call["hidden_states"], transformer.config.patch_size
    # A frame of latent is 6 of the video, which no scene is counted in.
    tokens = Tokens(grid_of(latents.shape[2:], (1, patch, patch)), text_behind=True)
    return Inputs(torch.as_tensor(call["timestep"]), latents, tokens)


MOCHI = Family(("transformer_blocks.*.attn1",), _inputs, rising=True)
