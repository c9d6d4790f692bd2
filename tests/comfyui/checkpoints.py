"""Tiny random checkpoints that ComfyUI's UNETLoader recognises as Wan and CogVideoX models.

Shapes are spelled out because ComfyUI cannot be imported where the tests run. Every parameter is written: ComfyUI
leaves whatever a checkpoint lacks uninitialised. Weights keep activations near unit size, residual gates are open and
queries and keys are scaled up, so that attention is far from uniform and a change of it shows in the sampled latent.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]

TEXT_DIM = 64
WAN_DIM = 256
WAN_FFN_DIM = 512
WAN_FREQ_DIM = 256
CLIP_VISION_DIM = 1280
VACE_CHANNELS = 96
COG_DIM = 128
COG_TIME_DIM = 64

QUERY_KEY_GAIN = 1.5
SMALL = 0.02
MODULATION_SCALE = 0.1


def write_wan(
    path: Path,
    seed: int,
    in_channels: int = 16,
    out_channels: int = 16,
    layers: int = 2,
    vace_layers: int = 0,
    clip_vision: bool = False,
    model_type: str | None = None,
) -> None:
    """Write a Wan model with two heads of 128; the channels, VACE and CLIP-vision parts decide which Wan it is.

    Those that have nobody's weights but another's say their `model_type`.
    """
    shapes = _wan_shapes(in_channels, out_channels, layers, vace_layers, clip_vision)
    # The width of the text embedding cannot be read off Wan's weights: ComfyUI takes it from the metadata or 4096.
    stated = {"text_dim": TEXT_DIM} | ({"model_type": model_type} if model_type else {})
    metadata = {"config": json.dumps({"transformer": stated})}
    save_file(_fill_all(shapes, seed), path, metadata=metadata)


def write_cogvideox(
    path: Path, seed: int, in_channels: int = 16, layers: int = 3, temporal_patch: int = 1, ofs: bool = False
) -> None:
    """Write a CogVideoX model with two heads of 64; `temporal_patch=2` makes it 1.5, `ofs` its image-to-video kin."""
    save_file(_fill_all(_cogvideox_shapes(in_channels, layers, temporal_patch, ofs), seed), path)


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layer_norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _conv3d(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, 1, 2, 2), f"{name}.bias": (outputs,)}


def _wan_block(name: str, clip_vision: bool) -> Shapes:
    shapes: Shapes = {f"{name}.modulation": (1, 6, WAN_DIM)}
    for attention in ("self_attn", "cross_attn"):
        image_parts = ("k_img", "v_img") if clip_vision and attention == "cross_attn" else ()
        for part in ("q", "k", "v", "o", *image_parts):
            shapes |= _linear(f"{name}.{attention}.{part}", WAN_DIM, WAN_DIM)
        for part in ("q", "k", "k_img") if image_parts else ("q", "k"):
            shapes[f"{name}.{attention}.norm_{part}.weight"] = (WAN_DIM,)
    shapes |= _layer_norm(f"{name}.norm3", WAN_DIM)
    shapes |= _linear(f"{name}.ffn.0", WAN_FFN_DIM, WAN_DIM)
    shapes |= _linear(f"{name}.ffn.2", WAN_DIM, WAN_FFN_DIM)
    return shapes


def _wan_shapes(in_channels: int, out_channels: int, layers: int, vace_layers: int, clip_vision: bool) -> Shapes:
    shapes = _conv3d("patch_embedding", WAN_DIM, in_channels)
    shapes |= _linear("text_embedding.0", WAN_DIM, TEXT_DIM) | _linear("text_embedding.2", WAN_DIM, WAN_DIM)
    shapes |= _linear("time_embedding.0", WAN_DIM, WAN_FREQ_DIM) | _linear("time_embedding.2", WAN_DIM, WAN_DIM)
    shapes |= _linear("time_projection.1", 6 * WAN_DIM, WAN_DIM)
    for index in range(layers):
        shapes |= _wan_block(f"blocks.{index}", clip_vision)
    shapes |= _linear("head.head", 4 * out_channels, WAN_DIM) | {"head.modulation": (1, 2, WAN_DIM)}
    if clip_vision:
        shapes |= _layer_norm("img_emb.proj.0", CLIP_VISION_DIM)
        shapes |= _linear("img_emb.proj.1", CLIP_VISION_DIM, CLIP_VISION_DIM)
        shapes |= _linear("img_emb.proj.3", WAN_DIM, CLIP_VISION_DIM)
        shapes |= _layer_norm("img_emb.proj.4", WAN_DIM)
    if vace_layers:
        shapes |= _conv3d("vace_patch_embedding", WAN_DIM, VACE_CHANNELS)
        shapes |= _linear("vace_blocks.0.before_proj", WAN_DIM, WAN_DIM)
    for index in range(vace_layers):
        shapes |= _wan_block(f"vace_blocks.{index}", clip_vision=False)
        shapes |= _linear(f"vace_blocks.{index}.after_proj", WAN_DIM, WAN_DIM)
    return shapes


def _cogvideox_shapes(in_channels: int, layers: int, temporal_patch: int, ofs: bool) -> Shapes:
    patch_size = 4 * temporal_patch
    # ComfyUI tells 1.5 from 1.0 by this weight: a linear layer over space and time instead of a 2D convolution.
    patch_weight = (COG_DIM, in_channels * patch_size) if temporal_patch > 1 else (COG_DIM, in_channels, 2, 2)
    shapes: Shapes = {"patch_embed.proj.weight": patch_weight, "patch_embed.proj.bias": (COG_DIM,)}
    shapes |= _linear("patch_embed.text_proj", COG_DIM, TEXT_DIM)
    shapes |= _linear("time_embedding_linear_1", COG_TIME_DIM, COG_DIM)
    shapes |= _linear("time_embedding_linear_2", COG_TIME_DIM, COG_TIME_DIM)
    if ofs:
        shapes |= _linear("ofs_embedding_linear_1", COG_TIME_DIM, COG_TIME_DIM)
        shapes |= _linear("ofs_embedding_linear_2", COG_TIME_DIM, COG_TIME_DIM)
    for index in range(layers):
        name = f"blocks.{index}"
        for part in ("q", "k", "v", "attn_out"):
            shapes |= _linear(f"{name}.{part}", COG_DIM, COG_DIM)
        shapes |= _layer_norm(f"{name}.norm_q", 64) | _layer_norm(f"{name}.norm_k", 64)
        for part in ("norm1", "norm2"):
            shapes |= _linear(f"{name}.{part}.linear", 6 * COG_DIM, COG_TIME_DIM)
            shapes |= _layer_norm(f"{name}.{part}.norm", COG_DIM)
        shapes |= _linear(f"{name}.ff_proj", 4 * COG_DIM, COG_DIM) | _linear(f"{name}.ff_out", COG_DIM, 4 * COG_DIM)
    shapes |= _layer_norm("norm_final", COG_DIM)
    shapes |= _linear("norm_out.linear", 2 * COG_DIM, COG_TIME_DIM) | _layer_norm("norm_out.norm", COG_DIM)
    return shapes | _linear("proj_out", 16 * patch_size, COG_DIM)


def _fill_all(shapes: Shapes, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: _fill(name, torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def _fill(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Scale one parameter's noise by the part it plays in the model."""
    if name.endswith((".modulation", ".bias")):
        offsets = SMALL * noise
        if name.startswith(("blocks.", "vace_blocks.")) and name.endswith((".modulation", ".linear.bias")):
            # Twice (shift, scale, gate): closed gates would hide what attention computed.
            offsets.view(6, -1)[[2, 5]] += 1.0
        return offsets
    if noise.ndim == 1:
        is_query_or_key = name.split(".")[-2] in ("norm_q", "norm_k", "norm_k_img")
        return SMALL * noise + (QUERY_KEY_GAIN if is_query_or_key else 1.0)
    is_modulation = name.startswith("time_projection.") or name.endswith(".linear.weight")
    return (MODULATION_SCALE if is_modulation else 1.0) * noise / math.sqrt(noise[0].numel())
