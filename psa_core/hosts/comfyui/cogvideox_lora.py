"""A CogVideoX LoRA on a MODEL, through ComfyUI's own weight patches."""

from __future__ import annotations

import logging

import comfy.lora
import comfy.model_patcher
import comfy.utils

from ...models.cogvideox.lora import MappedLoRA, map_lora
from ...settings.errors import ConfigError
from .models import recognise

log = logging.getLogger(__name__)

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
    _check_model(model)
    tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    shapes = {
        parameter.removeprefix(_PREFIX): tuple(x.shape)
        for parameter, x in model.model.named_parameters()
        if parameter.startswith(_PREFIX)
    }
    try:
        mapped = map_lora(tensors, metadata, shapes)
    except ConfigError as error:
        raise error.at(name) from error
    if not mapped.tensors:
        found = f"none of its {mapped.total} keys fits: {mapped.examples()}" if mapped.total else "it holds no tensor"
        raise ConfigError("lora_name", name, f"must be a LoRA for this CogVideoX model; {found}")
    if strength == 0:
        return model, mapped
    return _patched(model, mapped, strength), mapped


def _patched(
    model: comfy.model_patcher.ModelPatcher, mapped: MappedLoRA, strength: float
) -> comfy.model_patcher.ModelPatcher:
    layers = {weight.rpartition(".")[0] for weight in mapped.weights}
    patches = comfy.lora.load_lora(
        dict(mapped.tensors), {layer: f"{_PREFIX}{layer}.weight" for layer in layers}, log_missing=False
    )
    clone = model.clone()
    added = set(clone.add_patches(patches, strength))
    missed = {f"{_PREFIX}{weight}" for weight in mapped.weights} - added
    if missed:
        log.warning("CogVideoX LoRA: ComfyUI took no patch for %s", ", ".join(sorted(missed)))
    return clone


def _check_model(model: comfy.model_patcher.ModelPatcher) -> None:
    video_model = recognise(model.model)
    if video_model is None or video_model.kind != "cogvideox":
        raise ConfigError(
            "model", type(model.model).__name__, "must be CogVideoX; for other models use ComfyUI's own LoRA loader"
        )
