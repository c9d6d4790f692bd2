"""Kandinsky 5: the video alone in self-attention of its visual blocks. Latents have their channels last."""

from __future__ import annotations

from typing import Any

import torch

from .family import Family, Inputs, Tokens, grid_of

_FRAMES_PER_LATENT = 4


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents, patch_size = call["hidden_states"], transformer.config.patch_size
    tokens = Tokens(grid_of(latents.shape[1:4], patch_size), _FRAMES_PER_LATENT * patch_size[0])
    return Inputs(torch.as_tensor(call["timestep"]), latents, tokens)


KANDINSKY5 = Family(("visual_transformer_blocks.*.self_attention",), _inputs)
