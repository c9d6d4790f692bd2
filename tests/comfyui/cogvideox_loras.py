"""The tiny CogVideoX checkpoints as diffusers' transformers, and LoRAs for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from .checkpoints import COG_DIM, COG_TIME_DIM, TEXT_DIM, write_cogvideox

LAYERS = 3
LINEAR = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "norm1.linear", "norm2.linear"]
EVERY = [*LINEAR, "patch_embed.proj", "text_proj", "norm_out.linear", "proj_out"]
EVERY += ["time_embedding.linear_1", "time_embedding.linear_2"]
"""Ends of the names of all layers that peft can give a LoRA."""

# Word by word, not by the table under test.
_NATIVE = (
    ("transformer_blocks.", "blocks."),
    ("attn1.to_out.0.", "attn_out."),
    ("attn1.to_", ""),
    ("attn1.", ""),
    ("ff.net.0.proj.", "ff_proj."),
    ("ff.net.2.", "ff_out."),
    ("time_embedding.linear", "time_embedding_linear"),
    ("ofs_embedding.linear", "ofs_embedding_linear"),
)


def native_name(name: str) -> str:
    """ComfyUI's name of a parameter of diffusers' transformer."""
    for theirs, ours in _NATIVE:
        name = name.replace(theirs, ours)
    return name


def native_weights(folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """A tiny checkpoint as ComfyUI loads it."""
    path = folder / "cogvideox.safetensors"
    write_cogvideox(path, seed=0, layers=LAYERS, **settings)
    return load_file(path)


def transformer(weights: dict[str, torch.Tensor]) -> Any:
    """diffusers' transformer with a checkpoint's weights."""
    patch, ofs = weights["patch_embed.proj.weight"], "ofs_embedding_linear_1.weight" in weights
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=COG_DIM // 64,
        attention_head_dim=64,
        in_channels=patch.shape[1] if patch.ndim == 4 else patch.shape[1] // 8,
        out_channels=16,
        time_embed_dim=COG_TIME_DIM,
        ofs_embed_dim=COG_TIME_DIM if ofs else None,
        text_embed_dim=TEXT_DIM,
        num_layers=LAYERS,
        attention_bias=True,
        patch_size_t=None if patch.ndim == 4 else 2,
        use_rotary_positional_embeddings=True,
    ).eval()
    model.load_state_dict({name: weights[native_name(name)] for name in model.state_dict()})
    return model


def add_lora(model: Any, **settings: Any) -> None:
    """Give diffusers' transformer a LoRA with random factors; the settings are peft's."""
    model.add_adapter(LoraConfig(**({"r": 4, "target_modules": EVERY} | settings)))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            fan_in = parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
        elif ".lora_magnitude_vector." in name:
            parameter.data = parameter.data * (0.5 + torch.rand(parameter.shape, generator=generator))


def save_lora(model: Any, folder: Path, metadata: bool = False) -> Path:
    """Write the LoRA as diffusers' trainers do, by default without peft's settings."""
    settings = model.peft_config["default"].to_dict() if metadata else None
    diffusers.CogVideoXPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(model),
        transformer_lora_adapter_metadata=settings,
    )
    return folder / "pytorch_lora_weights.safetensors"
