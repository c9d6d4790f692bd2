"""Every kind of CogVideoX as a tiny diffusers transformer, and what diffusers computes and samples with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

from .checkpoints import TEXT_DIM
from .tiny_models import LatentGrid

TEXT_TOKENS = 226
TIME_DIM = 64
VIDEO_CHANNELS = 16


@dataclass(frozen=True)
class Variant:
    """A kind of CogVideoX; what is not here is the same in all.

    Attributes:
        heads: of 64 channels. 30 make it 2b, for everyone who looks at the file; the others are as small as can be.
        image_scale: what start images are multiplied with, in the unit of the VAE.
    """

    name: str
    heads: int = 2
    in_channels: int = VIDEO_CHANNELS
    layers: int = 2
    temporal_patch: int | None = None
    ofs: bool = False
    rotary: bool = True
    learned: bool = False
    snr_shift: float = 1.0
    image_scale: float = 1.0

    @property
    def checkpoint(self) -> str:
        """The file name in ComfyUI's folder."""
        return f"published_{self.name}.safetensors"

    def transformer(self, latent_frames: int = 13) -> Any:
        """diffusers' model, the same at every call. `latent_frames` cuts the learned positions."""
        height, width = (96, 170) if self.temporal_patch else (60, 90)
        model = diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=self.heads,
            attention_head_dim=64,
            in_channels=self.in_channels,
            out_channels=VIDEO_CHANNELS,
            time_embed_dim=TIME_DIM,
            ofs_embed_dim=TIME_DIM if self.ofs else None,
            text_embed_dim=TEXT_DIM,
            num_layers=self.layers,
            attention_bias=True,
            sample_width=width,
            sample_height=height,
            sample_frames=(latent_frames - 1) * 4 + 1,
            patch_size_t=self.temporal_patch,
            use_rotary_positional_embeddings=self.rotary,
            use_learned_positional_embeddings=self.learned,
        ).eval()
        _fill(model)
        return model


# ComfyUI 0.33 puts 1.15258426 on latents of models of fewer than 48 heads.
LATENT_SCALE = 1.15258426

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("2b", heads=30, layers=1, rotary=False, snr_shift=3.0),
        Variant("5b"),
        # ComfyUI builds learned positions for widths that are a multiple of 3.
        Variant("5b_i2v", heads=3, layers=1, in_channels=32, learned=True, image_scale=LATENT_SCALE),
        Variant("1.5", temporal_patch=2),
        Variant("1.5_i2v", temporal_patch=2, in_channels=32, ofs=True),
    )
}


@torch.no_grad()
def forward(model: Any, x: torch.Tensor, times: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """What a transformer makes of a latent ``[B, C, T, H, W]``, in the same layout."""
    ofs = torch.full(times.shape, 2.0) if model.config.ofs_embed_dim else None
    rotary = _rotary(model.config, x.shape[2:]) if model.config.use_rotary_positional_embeddings else None
    video = x.transpose(1, 2).contiguous()
    out = model(video, text, times, ofs=ofs, image_rotary_emb=rotary, return_dict=False)[0]
    moved: torch.Tensor = out.transpose(1, 2).contiguous()
    return moved


@torch.no_grad()
def sample(
    variant: Variant,
    grid: LatentGrid,
    texts: torch.Tensor,
    steps: int,
    cfg: float,
    seed: int,
    image: torch.Tensor | None,
) -> torch.Tensor:
    """A latent as ComfyUI saves it, by diffusers' scheduler as the published models set it.

    Args:
        variant: which model.
        grid: the latent's frames, height and width.
        texts: negative and positive embeddings, ``[2, tokens, dim]``.
        steps: denoising steps.
        cfg: guidance.
        seed: of ComfyUI's noise.
        image: start image's latent ``[1, 16, 1, H, W]`` in the VAE's unit; None for text alone.
    """
    model = variant.transformer(grid[0])
    scheduler = diffusers.CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        snr_shift_scale=variant.snr_shift,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    x = torch.randn((1, VIDEO_CHANNELS, *grid), generator=torch.Generator().manual_seed(seed))
    for time in scheduler.timesteps:
        seen = x
        if image is not None:
            shown = torch.zeros_like(x)
            shown[:, :, :1] = image * variant.image_scale
            seen = torch.cat([x, shown], dim=1)
        away, towards = forward(model, torch.cat([seen, seen]), time.expand(2).float(), texts)
        guided = away + cfg * (towards - away)
        x = scheduler.step(guided[None], time, x, return_dict=False)[0]
    return x / LATENT_SCALE


def _rotary(config: Any, size: tuple[int, ...]) -> Any:
    frames, rows, columns = size[0], size[1] // 2, size[2] // 2
    base = config.sample_height // 2, config.sample_width // 2
    if config.patch_size_t:
        patches = frames // config.patch_size_t
        return get_3d_rotary_pos_embed(64, None, (rows, columns), patches, grid_type="slice", max_size=base)
    crop = get_resize_crop_region_for_grid((rows, columns), base[1], base[0])
    return get_3d_rotary_pos_embed(64, crop, (rows, columns), frames)


@torch.no_grad()
def _fill(model: Any) -> None:
    """Weights that keep activations near unit size; queries and keys larger, so that attention is not uniform."""
    generator = torch.Generator().manual_seed(11)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        elif name.endswith(".weight"):
            parameter.copy_((1.5 if "norm_q" in name or "norm_k" in name else 1.0) + 0.1 * noise)
        else:
            parameter.copy_(0.3 * noise)
    if model.config.use_learned_positional_embeddings:
        positions = model.patch_embed.pos_embedding
        # Drawn row after row: fewer frames get the first of the same rows.
        positions.copy_(torch.randn(positions.shape, generator=generator))
