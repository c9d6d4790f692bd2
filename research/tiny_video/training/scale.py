"""Latents on Wan's scale: pipelines and ComfyUI take its mean and deviation of each channel for granted."""

from __future__ import annotations

from typing import Any

import torch


def normalised(autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents ``[batch, channels, ...]`` as transformers see them: about standard normal."""
    mean, deviation = _wan_scale(autoencoder, latents)
    shape = (-1, *(1,) * (latents.ndim - 2))
    return (latents - mean.view(shape)) / deviation.view(shape)


def restored(autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
    """The reverse of :func:`normalised`."""
    mean, deviation = _wan_scale(autoencoder, latents)
    shape = (-1, *(1,) * (latents.ndim - 2))
    return latents * deviation.view(shape) + mean.view(shape)


@torch.no_grad()
def to_wan_scale(autoencoder: Any, latents: torch.Tensor) -> None:
    """Change the last layer of the encoder and the first of the decoder so that latents get Wan's scale.

    What the autoencoder shows of a clip stays the same.

    Args:
        autoencoder: an ``AutoencoderKLWan``.
        latents: many of its latents, ``[batch, channels, ...]``.
    """
    flat = latents.transpose(0, 1).flatten(1)
    mean, deviation = _wan_scale(autoencoder, latents)
    factor = deviation / flat.std(1)
    shift = mean - factor * flat.mean(1)
    channels = len(factor)
    outwards, inwards = autoencoder.quant_conv, autoencoder.post_quant_conv
    outwards.weight[:channels] *= factor[:, None, None, None, None]
    outwards.bias[:channels] = outwards.bias[:channels] * factor + shift
    outwards.bias[channels:] += 2 * factor.log()
    inwards.weight /= factor[None, :, None, None, None]
    inwards.bias -= inwards.weight.flatten(1) @ shift


def _wan_scale(autoencoder: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    config = autoencoder.config
    return like.new_tensor(config.latents_mean), like.new_tensor(config.latents_std)
