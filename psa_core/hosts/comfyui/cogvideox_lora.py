"""A CogVideoX LoRA on a MODEL, by ComfyUI's own LoRA loader."""

from __future__ import annotations

import comfy.model_patcher
import comfy.sd
import comfy.utils

from ...models.cogvideox.lora import MappedLoRA, map_lora
from ...settings.errors import ConfigError, errors_at
from .models import CogVideoX, recognise

_PREFIX = "diffusion_model."


def apply_cogvideox_lora(
    model: comfy.model_patcher.ModelPatcher, path: str, name: str, strength: float
) -> tuple[comfy.model_patcher.ModelPatcher, MappedLoRA]:
    """A clone of a CogVideoX MODEL with a file's LoRA; with strength 0 the model itself.

    Args:
        model: the MODEL, which stays as it is.
        path: the file.
        name: what errors call it.
        strength: factor of the LoRA.

    Returns:
        The MODEL, and what of the file fitted.

    Raises:
        ConfigError: another model, a file of which nothing fits, or one that states the same thing twice.
    """
    if not isinstance(recognise(model.model), CogVideoX):
        raise ConfigError(
            "model", type(model.model).__name__, "must be CogVideoX; for other models use ComfyUI's own LoRA loader"
        )
    tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    shapes = {
        parameter.removeprefix(_PREFIX): tuple(x.shape)
        for parameter, x in model.model.named_parameters()
        if parameter.startswith(_PREFIX)
    }
    with errors_at(name):
        mapped = map_lora(tensors, metadata, shapes)
    if not mapped.tensors:
        found = f"none of its {mapped.total} keys fits: {mapped.examples()}" if mapped.total else "it holds no tensor"
        raise ConfigError("lora_name", name, f"must be a LoRA for this CogVideoX model; {found}")
    if strength == 0:
        return model, mapped
    named = {f"{_PREFIX}{key}": x for key, x in mapped.tensors.items()}
    patched, _ = comfy.sd.load_lora_for_models(model, None, named, strength, 0)
    return patched, mapped
