"""What can be drawn of a mask before anything runs: the level map of a video that is not there yet, made small."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..ops.levels.rules import density
from ..settings.errors import ConfigError
from ..settings.radial import RadialMask
from ..settings.sizes import Grid
from ..settings.validation import check_whole
from .static import static_levels

# Pixels a token and video frames a latent frame; CogVideoX's text; tokens a block.
_PIXELS, _FRAMES, _TEXT, _BLOCK = 16, 4, 226, 128
_MOST_SIDE, _MOST_TOKENS, _SIDE = 4096, 500_000, 256


@dataclass(frozen=True)
class MaskPreview:
    """A mask as a picture, square in blocks: query blocks downwards, key blocks to the right.

    Attributes:
        frames: of the video.
        grid: (frames, height, width) in tokens.
        text_length: tokens in front of the video.
        blocks: on a side of the level map; the last may be ragged.
        density: of the level map.
        shares: how much of every pixel is at a level, from 0 to 255, by level: uint8 ``[side, side]``.
    """

    frames: int
    grid: Grid
    text_length: int
    blocks: int
    density: float
    shares: dict[int, torch.Tensor]


def mask_preview(mask: RadialMask, width: int, height: int, frames: int) -> MaskPreview:
    """The picture of a mask for a video of this size, in pixels and frames.

    Scenes say themselves how many frames there are.

    Raises:
        ConfigError: the size is too large, or the scenes do not fit the frames.
    """
    for key, size in (("preview_width", width), ("preview_height", height), ("preview_frames", frames)):
        check_whole(key, size, 1)
    frames = mask.scene_boundaries[-1] if mask.scene_boundaries else frames  # type: ignore[assignment]
    grid = (frames + _FRAMES - 2) // _FRAMES + 1, math.ceil(height / _PIXELS), math.ceil(width / _PIXELS)
    if max(width, height, frames) > _MOST_SIDE or math.prod(grid) > _MOST_TOKENS:
        allowed = f"is too large to draw: {_MOST_SIDE} a side and {_MOST_TOKENS:,} tokens at most"
        raise ConfigError("preview size", [width, height, frames], allowed)
    text_length = _TEXT if mask.model_type == "cogvideox" else 0
    levels = static_levels(mask.replace(frames_per_token=_FRAMES), grid, text_length, _BLOCK, _BLOCK)[0, 0]
    side = min(_SIDE, len(levels))
    # A window narrower than a pixel leaves a trace: shares, not the nearest block.
    shares = {
        int(level): (torch.nn.functional.adaptive_avg_pool2d((levels == level)[None].float(), side)[0] * 255)
        .round()
        .byte()
        for level in levels.unique()
    }
    return MaskPreview(frames, grid, text_length, len(levels), float(density(levels)), shares)
