"""Noise levels and start images as CogVideoX was trained with them, in place of ComfyUI's."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.model_sampling
import torch

from .cogvideox_positions import is_2b

_BETA_START, _BETA_END, _TIMESTEPS = 0.00085, 0.012, 1000
_SNR_SHIFT_OF_2B = 3.0
_INPAINTING_CHANNELS = 48


class CogVideoXSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """Velocity over 1000 discrete noise levels, for ComfyUI's samplers.

    ComfyUI 0.33 hands its samplers' latents to CogVideoX unscaled, thousands of times too large at first, which suits
    the VOID sampler alone; and it knows no SNR shift.
    """


def noise_levels(snr_shift: float) -> torch.Tensor:
    """Sigmas of all 1000 steps in fp64: noise over signal, rescaled to end in noise alone."""
    betas = torch.linspace(_BETA_START**0.5, _BETA_END**0.5, _TIMESTEPS, dtype=torch.float64) ** 2
    signal = torch.cumprod(1.0 - betas, dim=0)
    # Dividing the ratio of signal to noise, in powers, by the shift.
    sigmas = (snr_shift * (1.0 - signal) / signal).sqrt()
    rescaled: torch.Tensor = comfy.model_sampling.rescale_zero_terminal_snr_sigmas(sigmas)
    return rescaled


def set_sampling(patcher: Any) -> None:
    """Let ComfyUI's samplers work on a freshly loaded MODEL.

    Inpainting models, VOID's, stay as they are: their own sampler counts on it.
    """
    config = patcher.model.model_config
    if config.unet_config["in_channels"] == _INPAINTING_CHANNELS:
        return
    sampling = CogVideoXSampling(config)
    sampling.set_sigmas(noise_levels(_SNR_SHIFT_OF_2B if is_2b(config.unet_config) else 1.0))
    patcher.add_object_patch("model_sampling", sampling)


def set_image_latents(patcher: Any) -> None:
    """Undo the latent scale of start images for 1.5-I2V, which was trained without it; ComfyUI always scales."""
    if patcher.model.model_config.unet_config.get("ofs_embed_dim"):
        patcher.add_object_patch("concat_cond", partial(_unscaled_images, patcher.model))


def _unscaled_images(base_model: Any, **conditioning: Any) -> torch.Tensor | None:
    """``concat_cond`` of a model that sees start images as the VAE gives them."""
    images = type(base_model).concat_cond(base_model, **conditioning)
    return None if images is None else images / base_model.latent_format.scale_factor
