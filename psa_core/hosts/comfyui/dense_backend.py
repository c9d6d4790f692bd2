"""Whether a chosen dense backend can run a model, asked before sampling."""

from __future__ import annotations

from typing import Any

from ...ops.dense_backends import dense_refusal
from ...settings.errors import ConfigError
from .own_attention import attention_device


def check_dense_backend(name: str, model: Any, head_dim: int | None) -> None:
    """See that a dense backend runs here.

    Args:
        name: as in ``PSAConfig.dense_backend``.
        model: ComfyUI's ``BaseModel``.
        head_dim: numbers an attention head; None where it is unknown, and calls will tell.

    Raises:
        ConfigError: it does not; the message says why.
    """
    if name == "model":
        return
    reason = dense_refusal(name, attention_device(), model.get_dtype_inference(), head_dim or 128)
    if reason is not None:
        raise ConfigError("dense_backend", name, f"cannot run here ({reason}); model runs what the model would run")
