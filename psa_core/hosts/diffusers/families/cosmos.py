"""Cosmos 1, Predict2 and 2.5: the video alone in self-attention, text in calls of its own."""

from __future__ import annotations

from typing import Any

import torch

from .family import Family, Inputs, Tokens, grid_of


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents, config = call["hidden_states"], transformer.config
    # Cosmos 1, which alone adds positions that it has learned, has an autoencoder of its own.
    frames_per_latent = 8 if config.extra_pos_embed_type else 4
    tokens = Tokens(grid_of(latents.shape[2:], config.patch_size), frames_per_latent * config.patch_size[0])
    return Inputs(torch.as_tensor(call["timestep"]), latents, tokens)


COSMOS = Family(("transformer_blocks.*.attn1",), _inputs)
