"""CogVideoX 1.0 and 1.5: one joint attention a block, text first."""

from __future__ import annotations

from typing import Any

import torch

from ....settings.sinks import text_in_front
from .family import Family, Inputs, Tokens, grid_of

_FRAMES_PER_LATENT = 4


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents = call["hidden_states"]
    _, frames, _, height, width = latents.shape
    # CogVideoX 1.0 has no patch size in time.
    patch, patch_frames = transformer.config.patch_size, transformer.config.patch_size_t or 1
    tokens = Tokens(
        grid_of((frames, height, width), (patch_frames, patch, patch)),
        _FRAMES_PER_LATENT * patch_frames,
        text_in_front(call["encoder_hidden_states"].shape[1]),
    )
    return Inputs(torch.as_tensor(call["timestep"]), latents, tokens)


COGVIDEOX = Family(("transformer_blocks.*.attn1",), _inputs)
