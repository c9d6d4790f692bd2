"""The positions that each CogVideoX was trained with, in place of those that ComfyUI takes for it.

ComfyUI 0.33 decides by whether ``pos_embedding`` is in the file: with it learned positions alone, without it rotary
ones alone. Of the released models only 1.5 comes out right:

- 2b has sine and cosine positions, computed and hence in no file, and no rotary ones. ComfyUI's own sine and cosine
  differ from diffusers' in how the axes share the channels.
- 5b has rotary positions that at 720 x 480 count patches. ComfyUI multiplies them by 1.875, a factor of 2b's.
- 5b-I2V has learned positions, of text tokens too, and rotary ones.

All is changed on the model loaded, as attributes and a hook; ComfyUI's classes stay as they are. The switches of
ComfyUI's own positions are turned off, so that nothing is added twice once it computes them right.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad

from ...settings.errors import ConfigError

# The only width of CogVideoX without rotary positions.
_HEADS_OF_2B = 30

# Patches of 720 x 480 pixels, the picture of 1.0's training.
_BASE_ROWS, _BASE_COLUMNS = 30, 45
_PIXELS_PER_PATCH = 16
_FRAMES_PER_LATENT = 4
_SINCOS_SPACING = 1.875
_THETA = 10000.0


def is_2b(unet: dict[str, Any]) -> bool:
    """Whether the sizes that ComfyUI found in a file are 2b's, or those of a model made from it."""
    return bool(unet["num_attention_heads"] == _HEADS_OF_2B)


def set_positions(base_model: Any) -> None:
    """Give a freshly loaded ComfyUI ``CogVideoX`` the positions of its training."""
    unet, network = base_model.model_config.unet_config, base_model.diffusion_model
    if unet.get("patch_size_t"):
        return
    rotary = not is_2b(unet)
    network.use_rotary_positional_embeddings = rotary
    network._get_rotary_emb = partial(rotary_positions, dim=unet["attention_head_dim"])
    patch_embed = network.patch_embed
    patch_embed.use_positional_embeddings = patch_embed.use_learned_positional_embeddings = False
    if unet.get("use_learned_positional_embeddings"):
        patch_embed.register_forward_hook(_add_learned)
    elif not rotary:
        patch_embed.register_forward_hook(_add_sincos)


def rotary_positions(
    height: int, width: int, frames: int, device: torch.device, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of 1.0's rotary positions, ``[frames * height * width, dim]`` each; sizes in patches.

    A picture of another size is fitted into the base one, centred, and its patches lie as many steps apart as that
    takes.
    """
    (top, rows), (left, columns) = _fit(height, width)
    steps = (
        torch.arange(frames, device=device, dtype=torch.float32),
        _spread(top, top + rows, height, device),
        _spread(left, left + columns, width, device),
    )
    angles = [_angles(*axis).repeat_interleave(2, dim=-1) for axis in zip(steps, _channels(dim), strict=True)]
    sizes = (frames, height, width)
    grid = torch.cat([_along(axis, values, sizes) for axis, values in enumerate(angles)], dim=-1).flatten(0, -2)
    return grid.cos(), grid.sin()


def sincos_positions(height: int, width: int, frames: int, device: torch.device, dim: int) -> torch.Tensor:
    """2b's positions, ``[frames * height * width, dim]``; sizes in patches."""
    sizes = (frames, height, width)
    spacings = (1.0, _SINCOS_SPACING, _SINCOS_SPACING)
    waves = []
    # Channels of the width come before those of the height, unlike the axes of the grid.
    for axis in (0, 2, 1):
        steps = torch.arange(sizes[axis], device=device, dtype=torch.float32) / spacings[axis]
        angles = _angles(steps, _channels(dim)[axis])
        waves.append(_along(axis, torch.cat([angles.sin(), angles.cos()], dim=-1), sizes))
    return torch.cat(waves, dim=-1).flatten(0, -2)


def _add_sincos(patch_embed: Any, inputs: tuple[torch.Tensor, torch.Tensor], embeds: torch.Tensor) -> torch.Tensor:
    text, video = inputs
    frames, height, width = _patches(patch_embed, video)
    positions = sincos_positions(height, width, frames, embeds.device, embeds.shape[-1])
    return embeds + pad(positions, (0, 0, text.shape[1], 0)).to(embeds.dtype)


def _add_learned(patch_embed: Any, inputs: tuple[torch.Tensor, torch.Tensor], embeds: torch.Tensor) -> torch.Tensor:
    text, video = inputs
    learned = patch_embed.pos_embedding[0].to(embeds)
    for_text, for_video = learned.tensor_split([patch_embed.max_text_seq_length])
    frames, height, width = _patches(patch_embed, video)
    known = for_video.shape[0] // (_BASE_ROWS * _BASE_COLUMNS)
    if (height, width) != (_BASE_ROWS, _BASE_COLUMNS) or frames > known:
        pixels = [size * _PIXELS_PER_PATCH for size in (width, height, _BASE_COLUMNS, _BASE_ROWS)]
        shown = f"{pixels[0]} x {pixels[1]}, {_video_frames(frames)} frames"
        allowed = f"{pixels[2]} x {pixels[3]} and at most {_video_frames(known)} frames"
        raise ConfigError("latent_image", shown, f"this CogVideoX has learned positions of {allowed}")
    length = text.shape[1]
    for_text = pad(for_text[:length], (0, 0, 0, max(0, length - for_text.shape[0])))
    return embeds + torch.cat([for_text, for_video[: frames * height * width]])


def _patches(patch_embed: Any, video: torch.Tensor) -> tuple[int, int, int]:
    """Frames, rows and columns of patches in a latent ``[B, T, C, H, W]``."""
    _, frames, _, height, width = video.shape
    return frames, height // patch_embed.patch_size, width // patch_embed.patch_size


def _video_frames(latent_frames: int) -> int:
    return (latent_frames - 1) * _FRAMES_PER_LATENT + 1


def _fit(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Start and size in rows and in columns of a picture fitted into the base one."""
    if height / width > _BASE_ROWS / _BASE_COLUMNS:
        rows, columns = _BASE_ROWS, round(_BASE_ROWS / height * width)
    else:
        rows, columns = round(_BASE_COLUMNS / width * height), _BASE_COLUMNS
    return (round((_BASE_ROWS - rows) / 2), rows), (round((_BASE_COLUMNS - columns) / 2), columns)


def _spread(start: int, stop: int, count: int, device: torch.device) -> torch.Tensor:
    # That the last step shrinks the distance from zero and not from the start is how the models were made.
    return torch.linspace(start, stop * (count - 1) / count, count, device=device, dtype=torch.float32)


def _channels(dim: int) -> tuple[int, int, int]:
    """How frames, rows and columns share the channels."""
    return dim // 4, dim // 8 * 3, dim // 8 * 3


def _angles(steps: torch.Tensor, dim: int) -> torch.Tensor:
    frequencies = _THETA ** -(torch.arange(0, dim, 2, device=steps.device, dtype=torch.float32) / dim)
    return torch.outer(steps, frequencies)


def _along(axis: int, values: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
    """Values ``[size, channels]`` of one axis at every point of the grid: ``[*sizes, channels]``."""
    shape = [1, 1, 1, -1]
    shape[axis] = sizes[axis]
    return values.reshape(shape).expand(*sizes, -1)
