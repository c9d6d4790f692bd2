"""ComfyUI's own sparse attention, Model Sparse Attention, beside the patch.

From ComfyUI 0.35 on its node puts an override on top of what it finds at every step. Installed later still, the patch
would hand it the calls that are to stay dense, and it might run them sparse.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

# Its file; ComfyUI loads those of its own nodes under names of their paths.
_FILE = "nodes_sparse_attention"
# How the reason of a call ends that it gets.
LEFT_TO_IT = "; left to Model Sparse Attention"


def is_model_sparse_attention(override: Callable[..., Any] | None) -> bool:
    """Whether an attention override is that of Model Sparse Attention."""
    return (getattr(override, "__module__", None) or "").replace("\\", "/").endswith(_FILE)


def beneath(override: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The override that Model Sparse Attention found, and calls for what it declines; None where it found none.

    It lies there once for each time that the node was put on top.
    """
    while inspect.isfunction(override) and is_model_sparse_attention(override):
        override = inspect.getclosurevars(override).nonlocals.get("previous")
    return override
