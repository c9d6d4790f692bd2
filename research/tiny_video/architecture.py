"""The sizes of the tiny video model, which is Wan 2.1 in everything else."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLWan, WanTransformer3DModel

from psa_core.models.tiny_video.vocabulary import TEXT_DIM


def new_transformer() -> Any:
    """A ``WanTransformer3DModel`` with random weights: two heads of 128, twelve blocks, 13 million parameters."""
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=128,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_DIM,
        freq_dim=256,
        ffn_dim=1024,
        num_layers=12,
    )


def new_autoencoder() -> Any:
    """An ``AutoencoderKLWan`` with random weights and a sixth of Wan's width: 3.6 million parameters."""
    return AutoencoderKLWan(base_dim=16)
