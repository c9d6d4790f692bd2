"""The same clip dense and with the settings of a case, from the same noise."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch

from psa_core.hosts.diffusers import patch
from psa_core.models.tiny_video.model import load_pipeline
from psa_core.report.quality import measure_quality
from psa_core.settings.config import PSAConfig

from .cases import QualityCase
from .results import QualityRow

PROMPT = "a red circle moving left over gray stripes"
SEED = 7
STEPS = 4
# The steps that decide what the clip shows are dense, and shared by all cases. With only one of them the clip shows
# something else with most presets, and then no setting is better than another.
WARM_UP = 3
# [batch, channels, frames, height, width] of a clip of 33 x 320 x 384, the size of the training.
LATENTS = (1, 16, 9, 40, 48)
# The decoder is causal: the first frame of latents makes the first of the clip, in a fraction of the time of all, its
# middle alone in a quarter of that. What is wrong elsewhere shows in the latents.
DECODED = (..., slice(1), slice(10, 30), slice(12, 36))


class Clip(NamedTuple):
    """Latents of the whole clip and the pixels of :data:`DECODED`, ``[1, height, width, 3]`` from 0 to 1."""

    latents: torch.Tensor
    frames: np.ndarray


class QualitySampler:
    """The tiny model, part way through a clip: after the steps that are dense in every case.

    Args:
        noise: float32, of the shape :data:`LATENTS`; None for that of :data:`SEED`.
    """

    def __init__(self, noise: torch.Tensor | None = None) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Kernels want half precision; plain torch is exact, and a baseline from it holds on every CPU.
        self._dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        self._backend = "auto" if self._device.type == "cuda" else "torch"
        self._pipeline = load_pipeline(self._dtype).to(self._device)
        self._scheduler = self._pipeline.scheduler
        self._scheduler.set_timesteps(STEPS, device=self._device)
        self._latents = (seeded_noise() if noise is None else noise).to(self._device)
        self._text = self._pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False, device=self._device)[0]
        self._latents = self._denoise(self._latents, self._scheduler, range(WARM_UP))

    def dense(self) -> Clip:
        """The clip with the model's own attention."""
        return self._finish()

    def measure(self, case: QualityCase, dense: Clip) -> QualityRow:
        """The clip with the settings of a case against the dense one."""
        clip, density = self.sparse(case.config)
        quality = measure_quality(clip.frames, dense.frames)
        distance = torch.linalg.vector_norm(clip.latents - dense.latents) / torch.linalg.vector_norm(dense.latents)
        return QualityRow(
            case.name, case.presets, density, quality.mean_psnr, quality.mean_ssim, latents_error=float(distance)
        )

    def sparse(self, config: PSAConfig) -> tuple[Clip, float]:
        """The clip with PSA, and the density of its sparse calls."""
        transformer = self._pipeline.transformer
        with patch(transformer, config, backend=self._backend, steps=STEPS - WARM_UP) as handle:
            clip = self._finish()
        density = handle.report.density()
        assert density is not None, handle.report.line()
        return clip, density

    def _finish(self) -> Clip:
        # A multistep scheduler remembers earlier steps, so each clip goes on with a copy.
        latents = self._denoise(self._latents, copy.deepcopy(self._scheduler), range(WARM_UP, STEPS))
        return Clip(latents, self._decode(latents[DECODED]))

    @torch.inference_mode()
    def _denoise(self, latents: torch.Tensor, scheduler: Any, steps: range) -> torch.Tensor:
        for step in steps:
            time = scheduler.timesteps[step]
            velocity = self._pipeline.transformer(
                hidden_states=latents.to(self._dtype),
                timestep=time.expand(1),
                encoder_hidden_states=self._text.to(self._dtype),
                return_dict=False,
            )[0]
            latents = scheduler.step(velocity.float(), time, latents, return_dict=False)[0]
        return latents

    @torch.inference_mode()
    def _decode(self, latents: torch.Tensor) -> np.ndarray:
        vae = self._pipeline.vae
        mean, std = (
            torch.tensor(values, device=self._device).view(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        pixels = vae.decode(latents * std + mean, return_dict=False)[0]
        return self._pipeline.video_processor.postprocess_video(pixels, output_type="np")[0]


def seeded_noise() -> torch.Tensor:
    """The noise that every run starts from."""
    # On the CPU, so that every machine has the same.
    return torch.randn(LATENTS, generator=torch.Generator().manual_seed(SEED))
