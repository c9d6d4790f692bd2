"""Tiny random transformers of diffusers, each with the inputs of one forward pass."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch.utils._pytree import tree_map

LAYERS = 2
TEXT = 11


def wan() -> torch.nn.Module:
    return diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=64,
        num_layers=LAYERS,
    ).eval()


def cogvideox(**settings: Any) -> torch.nn.Module:
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=8,
        num_layers=LAYERS,
        sample_width=14,
        sample_height=18,
        sample_frames=17,
        max_text_seq_length=TEXT,
        **settings,
    ).eval()


class Model:
    """A transformer with the inputs of one forward pass: video latents, text, and rotary angles if it wants them."""

    def __init__(self, transformer: torch.nn.Module, latents: tuple[int, ...], **inputs: Any) -> None:
        self.transformer = transformer
        self.inputs = {
            "hidden_states": torch.randn(latents),
            "encoder_hidden_states": torch.randn(2, TEXT, 8),
            **inputs,
        }

    def __call__(self, timestep: float = 999) -> torch.Tensor:
        timesteps = torch.full((2,), timestep, device=self.inputs["hidden_states"].device)
        return self.transformer(timestep=timesteps, return_dict=False, **self.inputs)[0]

    def to(self, device: str, dtype: torch.dtype) -> Model:
        """Move weights and inputs; masks, places and the like keep their dtype."""
        self.transformer.to(device, dtype)
        self.inputs = tree_map(lambda x: _moved(x, device, dtype), self.inputs)
        return self

    @property
    def blocks(self) -> Any:
        return getattr(self.transformer, "blocks", None) or self.transformer.transformer_blocks

    def processors(self) -> list[Any]:
        return list(self.transformer.attn_processors.values())


def _moved(x: Any, device: str, dtype: torch.dtype) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    return x.to(device, dtype) if x.dtype == torch.float32 else x.to(device)


def wan_model() -> Model:
    return Model(wan(), (2, 4, 5, 18, 14))


def wan_with_odd_latents() -> Model:
    return Model(wan(), (2, 4, 3, 17, 21))


def cogvideox_1_0() -> Model:
    return Model(cogvideox(), (2, 5, 4, 18, 14))


def cogvideox_1_0_with_odd_latents() -> Model:
    return Model(
        cogvideox(use_rotary_positional_embeddings=True), (2, 3, 4, 19, 15), image_rotary_emb=rotary(3 * 9 * 7)
    )


def cogvideox_1_5() -> Model:
    transformer = cogvideox(patch_size_t=2, use_rotary_positional_embeddings=True)
    return Model(transformer, (2, 6, 4, 18, 14), image_rotary_emb=rotary(3 * 9 * 7))


def rotary(tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.randn(tokens, 32).repeat_interleave(2, 1)
    return angles.cos(), angles.sin()


MODELS = (wan_model, wan_with_odd_latents, cogvideox_1_0, cogvideox_1_0_with_odd_latents, cogvideox_1_5)
