"""Wan's autoencoder on whole clips in one pass, for training.

diffusers feeds it four frames at a time and keeps what convolutions saw before. That needs little memory and is slow,
and the mathematics is the same: a causal convolution sees the two frames before a frame, zeros before the first. Here
the frames of a clip are a batch of pictures, and a convolution over three frames is one over a picture with three times
the channels, which is what GPUs are fast at.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional


def encode(autoencoder: Any, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log variance ``[batch, channels, 1 + n, height / 8, width / 8]`` of the latents of clips.

    Args:
        autoencoder: an ``AutoencoderKLWan``.
        clips: ``[batch, 3, 1 + 4 * n, height, width]``, from -1 to 1.
    """
    encoder, batch = autoencoder.encoder, len(clips)
    x = _convolve(encoder.conv_in, _to_pictures(clips), batch)
    for block in encoder.down_blocks:
        x = _block(block, x, batch)
    x = _middle(encoder.mid_block, x, batch)
    x = _convolve(encoder.conv_out, _activate(encoder.norm_out, x), batch)
    x = _convolve(autoencoder.quant_conv, x, batch)
    mean, log_variance = _to_clips(x, batch).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode(autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
    """Clips ``[batch, 3, 1 + 4 * n, height, width]``, about -1 to 1, of latents; shapes as in :func:`encode`."""
    decoder, batch = autoencoder.decoder, len(latents)
    x = _convolve(autoencoder.post_quant_conv, _to_pictures(latents), batch)
    x = _convolve(decoder.conv_in, x, batch)
    x = _middle(decoder.mid_block, x, batch)
    for block in decoder.up_blocks:
        for residual in block.resnets:
            x = _residual(residual, x, batch)
        if block.upsamplers is not None:
            x = _resample(block.upsamplers[0], x, batch)
    x = _convolve(decoder.conv_out, _activate(decoder.norm_out, x), batch)
    return _to_clips(x, batch)


def _to_pictures(clips: torch.Tensor) -> torch.Tensor:
    return clips.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _to_clips(pictures: torch.Tensor, batch: int) -> torch.Tensor:
    return pictures.unflatten(0, (batch, -1)).transpose(1, 2)


def _block(block: Any, x: torch.Tensor, batch: int) -> torch.Tensor:
    return _resample(block, x, batch) if hasattr(block, "resample") else _residual(block, x, batch)


def _middle(block: Any, x: torch.Tensor, batch: int) -> torch.Tensor:
    x = _residual(block.resnets[0], x, batch)
    for attention, residual in zip(block.attentions, block.resnets[1:], strict=True):
        x = _residual(residual, attention(x[:, :, None])[:, :, 0], batch)
    return x


def _residual(block: Any, x: torch.Tensor, batch: int) -> torch.Tensor:
    shortcut = x if isinstance(block.conv_shortcut, torch.nn.Identity) else _convolve(block.conv_shortcut, x, batch)
    for norm, convolution in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        x = _convolve(convolution, _activate(norm, x), batch)
    return x + shortcut


def _activate(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return _norm_and_silu(x, norm.gamma.flatten())


@torch.compile(dynamic=True)
def _norm_and_silu(x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    normed = functional.normalize(x.float(), dim=1) * (math.sqrt(x.shape[1]) * gamma)[:, None, None]
    return functional.silu(normed).to(x.dtype)


def _resample(block: Any, x: torch.Tensor, batch: int) -> torch.Tensor:
    if block.mode == "upsample3d":
        x = _twice_the_frames(block.time_conv, x, batch)
    x = block.resample(x)
    if block.mode == "downsample3d":
        x = _half_the_frames(block.time_conv, x, batch)
    return x


def _convolve(convolution: Any, x: torch.Tensor, batch: int) -> torch.Tensor:
    """A causal convolution over three frames or one."""
    weight, padding = convolution.weight, convolution._padding[0]
    if weight.shape[2] == 1 or len(x) == batch:
        # Before a clip of one frame there are only zeros.
        return functional.conv2d(x, weight[:, :, -1], convolution.bias, padding=padding)
    clips = x.unflatten(0, (batch, -1))
    padded = functional.pad(clips, (0, 0, 0, 0, 0, 0, 2, 0))
    return _convolve_three([padded[:, :-2], padded[:, 1:-1], clips], convolution, padding)


def _convolve_three(frames: list[torch.Tensor], convolution: Any, padding: int) -> torch.Tensor:
    """Convolve frames ``[batch, frames, channels, height, width]`` with those before and before these."""
    stacked = torch.cat(frames, dim=2).flatten(0, 1)
    weight = convolution.weight.transpose(1, 2).flatten(1, 2)
    return functional.conv2d(stacked, weight, convolution.bias, padding=padding)


def _half_the_frames(convolution: Any, x: torch.Tensor, batch: int) -> torch.Tensor:
    """The first frame as it is; then one for two."""
    if len(x) == batch:
        return x
    clips = x.unflatten(0, (batch, -1))
    pairs = _convolve_three([clips[:, :-2:2], clips[:, 1::2], clips[:, 2::2]], convolution, 0)
    return torch.cat([clips[:, :1], pairs.unflatten(0, (batch, -1))], dim=1).flatten(0, 1)


def _twice_the_frames(convolution: Any, x: torch.Tensor, batch: int) -> torch.Tensor:
    """The first frame as it is; then two for one, of which the first is not seen."""
    if len(x) == batch:
        return x
    clips = x.unflatten(0, (batch, -1))
    later = clips[:, 1:].flatten(0, 1)
    pairs = _convolve(convolution, later, batch).unflatten(1, (2, -1)).unflatten(0, (batch, -1)).flatten(1, 2)
    return torch.cat([clips[:, :1], pairs], dim=1).flatten(0, 1)
