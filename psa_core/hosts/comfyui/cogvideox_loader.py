"""CogVideoX weights as they are published, loaded into ComfyUI's CogVideoX."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import torch

from ...models.cogvideox.names import core_parameter
from ...models.cogvideox.shards import all_shards
from ...settings.errors import ConfigError
from .cogvideox_positions import set_positions
from .cogvideox_sampling import set_image_latents, set_sampling

FILE_KEY = "unet_name"

# What ComfyUI's UNETLoader makes of the same names.
_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}
WEIGHT_DTYPES = list(_OPTIONS)

_PATCHES = "patch_embed.proj.weight"
# Together no other model has them.
_SIGNS = (_PATCHES, "patch_embed.text_proj.weight", "blocks.0.norm1.linear.weight")
# Blocks by heads of all published models: 2b, and the others. They take T5-XXL's text; what takes another is a model of
# somebody's own, whose number of blocks cannot be known.
_BLOCKS = {30: 30, 48: 42}
_TEXT_DIM = 4096
_NAMED = 3
# Of the image-to-video models of 1.0 only the one that was published has them, and ComfyUI fills its channels.
_LEARNED_POSITIONS = "patch_embed.pos_embedding"

_TEXT_CHANNELS, _IMAGE_CHANNELS, _FUN_CHANNELS, _VOID_CHANNELS = 16, 32, 33, 48
# 1.5 flattens a patch over time, height and width.
_VALUES_PER_PATCH = 8


def load_cogvideox(path: str, weight_dtype: str, **patcher_options: Any) -> Any:
    """The MODEL in a file, with diffusers' or ComfyUI's names, whole or one of several parts.

    Positions, noise levels and the scale of start images are set to what the model was trained with; where
    ComfyUI's are right they stay.

    Args:
        path: the file. The other parts of one that comes in parts lie beside it.
        weight_dtype: one of ``WEIGHT_DTYPES``.
        patcher_options: what ComfyUI adds when it loads the model once more, for another device.

    Raises:
        ConfigError: a part is missing, or the file holds no CogVideoX, one that ComfyUI has no model for, or one that
            lacks weights.
    """
    name = Path(path).name
    weights, metadata = _read(Path(path))
    _refuse_strangers(weights, name)
    held = _names(weights)
    try:
        patcher = comfy.sd.load_diffusion_model_state_dict(
            weights, model_options=dict(_OPTIONS[weight_dtype]), metadata=metadata, **patcher_options
        )
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise ConfigError(FILE_KEY, name, f"holds weights of sizes that do not fit each other: {error}") from error
    _refuse_incomplete(held, patcher.model.diffusion_model, name)
    set_positions(patcher.model)
    set_sampling(patcher)
    set_image_latents(patcher)
    patcher.cached_patcher_init = (load_cogvideox, (path, weight_dtype))
    return patcher


def _refuse_strangers(weights: dict[str, torch.Tensor], name: str) -> None:
    """Refuse a CogVideoX whose further input channels are none that ComfyUI fills, or others than it takes them for."""
    channels, is_1_0 = _input_channels(weights)
    if channels not in (_TEXT_CHANNELS, _IMAGE_CHANNELS, _VOID_CHANNELS):
        known = "16 (text to video), 32 (image to video) and 48 (VOID)"
        what = "CogVideoX-Fun InP has 33" if channels == _FUN_CHANNELS else "this is none of them"
        allowed = f"has {channels} input channels; ComfyUI samples CogVideoX of {known}; {what}"
        raise ConfigError(FILE_KEY, name, allowed)
    if is_1_0 and channels == _IMAGE_CHANNELS and not any(key.endswith(_LEARNED_POSITIONS) for key in weights):
        allowed = (
            "is CogVideoX-Fun Pose or Control, whose further channels are no start image; ComfyUI has no model for it"
        )
        raise ConfigError(FILE_KEY, name, allowed)


def _names(weights: dict[str, torch.Tensor]) -> set[str]:
    """The weights as the model itself names them; checkpoints name it as well."""
    prefix = next(key for key in weights if key.endswith(_PATCHES)).removesuffix(_PATCHES)
    return {key.removeprefix(prefix) for key in weights}


def _refuse_incomplete(held: set[str], transformer: Any, name: str) -> None:
    """Refuse a file that lacks weights, which ComfyUI would leave as the memory happens to be."""
    parameters = [key for key, _ in transformer.named_parameters()]
    # ComfyUI counts blocks up to the first that is not there.
    counted = len(transformer.blocks)
    in_file = {int(found[1]) for key in held if (found := re.match(r"blocks\.(\d{1,4})\.", key))}
    is_published = transformer.patch_embed.text_proj.in_features == _TEXT_DIM
    published = _BLOCKS.get(transformer.num_attention_heads, 0) if is_published else 0
    whole = max(max(in_file) + 1, published)
    block = [key.removeprefix("blocks.0.") for key in parameters if key.startswith("blocks.0.")]
    parameters += [f"blocks.{index}.{part}" for index in range(counted, whole) for part in block]
    missing = [key for key in parameters if key not in held]
    if missing:
        first = ", ".join(missing[:_NAMED])
        allowed = f"is incomplete: {len(missing):,} weights are missing, such as {first}; get the file once more"
        raise ConfigError(FILE_KEY, name, allowed)


def _input_channels(weights: dict[str, torch.Tensor]) -> tuple[int, bool]:
    """How many input channels a file's model has, and whether it is a CogVideoX 1.0."""
    patch = next(weight for key, weight in weights.items() if key.endswith(_PATCHES))
    return (patch.shape[1], True) if patch.ndim == 4 else (patch.shape[1] // _VALUES_PER_PATCH, False)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    weights: dict[str, torch.Tensor] = {}
    metadata = None
    for shard in all_shards(path, FILE_KEY):
        part, part_metadata = comfy.utils.load_torch_file(str(shard), return_metadata=True)
        weights |= {core_parameter(name): weight for name, weight in part.items()}
        metadata = metadata or part_metadata
    if not all(any(name.endswith(sign) for name in weights) for sign in _SIGNS):
        raise ConfigError(FILE_KEY, path.name, "must be a CogVideoX transformer, with diffusers' or ComfyUI's names")
    return weights, metadata
