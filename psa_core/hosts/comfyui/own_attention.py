"""ComfyUI itself for the doctor: its version, its device, and the dense attention that it would run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as attention
import comfy.model_management
import torch

from .attention_name import attention_name
from .reach import OVERRIDE_KEY

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def comfyui_version() -> str | None:
    """Its version; None where it does not say."""
    try:
        version: str = importlib.import_module("comfyui_version").__version__
    except (ImportError, AttributeError):
        return None
    return version


def attention_device() -> torch.device:
    """Where it runs models."""
    device: torch.device = comfy.model_management.get_torch_device()
    return device


def own_attention(model: Any = None) -> tuple[str, Attention]:
    """The dense attention that a run would take: its name, and it, of q, k and v ``[B, H, L, D]``.

    Args:
        model: a MODEL, whose override comes first where another node has set one.
    """
    options = {} if model is None else model.model_options.get("transformer_options", {})
    override = options.get(OVERRIDE_KEY)
    name = attention_name(attention.optimized_attention if override is None else override)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        heads = q.shape[1]
        # As models call it: [B, L, H * D], views of the same memory.
        flat = (x.transpose(1, 2).flatten(2) for x in (q, k, v))
        given = {} if override is None else {OVERRIDE_KEY: override}
        out = attention.optimized_attention(*flat, heads=heads, transformer_options=given)
        return out.unflatten(2, (heads, -1)).transpose(1, 2)

    return f"ComfyUI's own ({name})", attend


def make_room(size: int) -> None:
    """Have so many bytes free on the device, by unloading models where there are fewer."""
    device = attention_device()
    if device.type != "cpu":
        comfy.model_management.free_memory(size, device)


def stop_if_asked() -> None:
    """Raise ComfyUI's exception for it where the user has cancelled the prompt."""
    comfy.model_management.throw_exception_if_processing_interrupted()
