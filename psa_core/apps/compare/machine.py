"""What a comparison runs on."""

from __future__ import annotations

import os
from typing import Any

import torch

_TORCH = "torch's scaled_dot_product_attention"


def gpu_name() -> str | None:
    """The GPU's name; None on a CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def dense_attention(pipeline: Any) -> str:
    """What computes the dense attention of a pipeline that nobody has patched."""
    processors = [module.processor for module in pipeline.transformer.modules() if hasattr(module, "processor")]
    # Processors without such an attribute call torch, whatever is chosen.
    backend = os.environ.get("DIFFUSERS_ATTN_BACKEND", "native")
    dispatches = any(hasattr(processor, "_attention_backend") for processor in processors)
    return f"diffusers' {backend} backend" if dispatches and backend != "native" else _TORCH
