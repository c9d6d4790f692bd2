"""HunyuanVideo 1 and 1.5: joint attention, the video first.

| model | tokens of self-attention |
|---|---|
| HunyuanVideo | video, text, padding |
| 1.5 | video; picture, glyphs and text without their padding; all their padding |

Text is a sink. Masks are always there, and hide the padding.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .family import Family, Inputs, Tokens, grid_of

_FRAMES_PER_LATENT = 4


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents, text = call["hidden_states"], call["encoder_attention_mask"].sum(1)
    return _inputs_with(transformer, call, latents, text)


def _inputs_1_5(transformer: Any, call: dict[str, Any]) -> Inputs:
    text = call["encoder_attention_mask"].sum(1) + call["encoder_attention_mask_2"].sum(1)
    picture = call["image_embeds"]
    # Without a picture it is zeros, and hidden.
    there = (picture != 0).any()
    return _inputs_with(transformer, call, call["hidden_states"], text + there * picture.shape[1])


def _inputs_with(transformer: Any, call: dict[str, Any], latents: torch.Tensor, beside: torch.Tensor) -> Inputs:
    config = transformer.config
    grid = grid_of(latents.shape[2:], (config.patch_size_t, config.patch_size, config.patch_size))
    tokens = Tokens(
        grid, _FRAMES_PER_LATENT * config.patch_size_t, text_behind=True, unpadded=math.prod(grid) + beside.long()
    )
    return Inputs(torch.as_tensor(call["timestep"]), latents, tokens)


_BLOCKS = "transformer_blocks.*.attn"

HUNYUAN_VIDEO = Family((_BLOCKS, "single_transformer_blocks.*.attn"), _inputs)
HUNYUAN_VIDEO_1_5 = Family((_BLOCKS,), _inputs_1_5)
