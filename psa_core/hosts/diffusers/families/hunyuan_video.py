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

from ....ops.modes import is_traced
from ...read_once import read_once
from .family import Family, Inputs, Tokens, grid_of

_FRAMES_PER_LATENT = 4


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    return _inputs_with(transformer, call, call["encoder_attention_mask"])


def _inputs_1_5(transformer: Any, call: dict[str, Any]) -> Inputs:
    masks = call["encoder_attention_mask"], call["encoder_attention_mask_2"]
    return _inputs_with(transformer, call, *masks, call["image_embeds"])


def _inputs_with(transformer: Any, call: dict[str, Any], *beside: torch.Tensor) -> Inputs:
    config, latents = transformer.config, call["hidden_states"]
    grid = grid_of(latents.shape[2:], (config.patch_size_t, config.patch_size, config.patch_size))
    # A graph cannot wait for what it is given.
    unpadded = _unpadded(*beside) if is_traced() else read_once(_unpadded_here, *beside)
    tokens = Tokens(
        grid, _FRAMES_PER_LATENT * config.patch_size_t, text_behind=True, unpadded=math.prod(grid) + unpadded
    )
    return Inputs(torch.as_tensor(call["timestep"]), latents, tokens)


def _unpadded(
    mask: torch.Tensor, mask_2: torch.Tensor | None = None, picture: torch.Tensor | None = None
) -> torch.Tensor:
    """How many tokens beside the video are no padding, int ``[B]``."""
    unpadded = mask.sum(1)
    if mask_2 is not None:
        unpadded = unpadded + mask_2.sum(1)
    if picture is not None:
        # Without a picture it is zeros, and hidden.
        unpadded = unpadded + (picture != 0).any() * picture.shape[1]
    return unpadded.long()


def _unpadded_here(*beside: torch.Tensor) -> torch.Tensor:
    return _unpadded(*beside).cpu()


_BLOCKS = "transformer_blocks.*.attn"

HUNYUAN_VIDEO = Family((_BLOCKS, "single_transformer_blocks.*.attn"), _inputs)
HUNYUAN_VIDEO_1_5 = Family((_BLOCKS,), _inputs_1_5)
