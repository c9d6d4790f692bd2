"""LTX-Video and LTX-2: the video alone in self-attention, with the guides that a pipeline puts behind it.

The sound of LTX-2 has attention of its own, and all of it is dense. A pipeline that gives positions instead of sizes,
as LTX-Video's with conditions does, leaves the grid unknown.
"""

from __future__ import annotations

from typing import Any

import torch

from .family import Family, Inputs, Tokens, grid_of

_FRAMES_PER_LATENT = 8


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    frames, height, width = (call.get(name) for name in ("num_frames", "height", "width"))
    patch, patch_frames = transformer.config.patch_size, transformer.config.patch_size_t
    grid = None
    if frames and height and width:
        grid = grid_of((frames, height, width), (patch_frames, patch, patch))
    tokens = Tokens(grid, _FRAMES_PER_LATENT * patch_frames, grid_optional=True)
    return Inputs(torch.as_tensor(call["timestep"]), call["hidden_states"], tokens)


LTX = Family(("transformer_blocks.*.attn1",), _inputs)
