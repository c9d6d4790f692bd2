"""From diffusers' names of weights to Wan's own, which ComfyUI and diffusers' single-file loaders read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from psa_core.models.tiny_video.vocabulary import TEXT_DIM
from psa_core.settings.files import written_whole

_TRANSFORMER = (
    (r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^scale_shift_table", "head.modulation"),
    (r"^proj_out", "head.head"),
    (r"\.scale_shift_table", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.ffn\.net\.0\.proj", ".ffn.0"),
    (r"\.ffn\.net\.2", ".ffn.2"),
    # Of a block's three norms, the one before cross-attention is Wan's third and diffusers' second.
    (r"\.norm2\.", ".norm3."),
)
_AUTOENCODER = (
    (r"^quant_conv", "conv1"),
    (r"^post_quant_conv", "conv2"),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"\.norm1\.", ".residual.0."),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
# A level of the decoder: three residual blocks and what enlarges.
_UP = re.compile(r"\.up_blocks\.(\d)\.(?:resnets\.(\d)|upsamplers\.0)")
_LEVEL = 4


def export_transformer(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Write a transformer's weights in bfloat16.

    The file says how long text embeddings are, because ComfyUI otherwise takes Wan's 4096 for granted.
    """
    settings = {"config": json.dumps({"transformer": {"text_dim": TEXT_DIM}})}
    _save({_rename(name, _TRANSFORMER): x.bfloat16() for name, x in weights.items()}, file, settings)


def export_autoencoder(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Write an autoencoder's weights in half precision."""
    _save({_autoencoder_name(name): x.half() for name, x in weights.items()}, file, {})


def _autoencoder_name(name: str) -> str:
    # The first convolution of the encoder and decoder has the name that residual blocks give to theirs.
    first = re.fullmatch(r"((?:en|de)coder)\.conv_in\.(\w+)", name)
    if first:
        return f"{first[1]}.conv1.{first[2]}"
    return _rename(_UP.sub(lambda at: f".upsamples.{_LEVEL * int(at[1]) + int(at[2] or 3)}", name), _AUTOENCODER)


def _rename(name: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _save(weights: dict[str, torch.Tensor], file: Path, settings: dict[str, str]) -> None:
    with written_whole(file) as draft:
        save_file({name: x.contiguous().cpu() for name, x in weights.items()}, draft, {"format": "pt", **settings})
