"""Dense attention beside a model's own: torch's cuDNN, and INT8 attention of packages that may be installed."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .current_device import on_device_of_first
from .kernel_table import COMFY_KITCHEN, CUDNN, SAGE, Kernels
from .refusals import is_out_of_memory, refusal

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# Relative error from which a result is wrong rather than rounded.
_WRONG = 0.2
# With cuDNN alone, a call of another thread that cuDNN does not take would fail meanwhile.
_BY_PRIORITY = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_HAS_PRIORITY = "set_priority" in inspect.signature(sdpa_kernel).parameters


class RefusalError(RuntimeError):
    """An attention cannot take part; the message says why in a few words."""


def installed(module: str, name: str, function: str) -> Any:
    """A package that has a function.

    Raises:
        RefusalError: there is none.
    """
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise RefusalError(f"{name} is not installed" if error.name == module else str(error)) from None
    # A build for another torch or GPU fails in many ways.
    except Exception as error:
        raise RefusalError(f"{name} does not import: {error}") from None
    if not hasattr(package, function):
        raise RefusalError(f"this {name} has no {function}")
    return package


@on_device_of_first
def cudnn_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Torch's attention by cuDNN. Shapes of all here: ``[B, H, L, D]``.

    Raises:
        RefusalError: cuDNN does not take the call.
    """
    options = {"set_priority": True} if _HAS_PRIORITY else {}
    with sdpa_kernel(_BY_PRIORITY if _HAS_PRIORITY else _BY_PRIORITY[:1], **options):
        if not can_use_cudnn_attention(SDPAParams(q, k, v, None, 0.0, False, False)):
            raise RefusalError("cuDNN's attention does not take such a call")
        return scaled_dot_product_attention(q, k, v)


def kitchen_attention(device: torch.device) -> Attention:
    """comfy-kitchen's INT8 attention.

    Raises:
        RefusalError: it is not installed, or does not run on the device.
    """
    kitchen = installed("comfy_kitchen", "comfy-kitchen", "int8_attention")
    if not kitchen.int8_attention_is_available(device):
        raise RefusalError("its INT8 kernels do not run on this GPU")
    attention: Attention = kitchen.int8_attention
    return attention


def sage_attention(device: torch.device) -> Attention:
    """SageAttention in INT8 and FP8 or FP16, as the package picks for the GPU; on any device it has a say itself.

    Raises:
        RefusalError: it is not installed.
    """
    sage = installed("sageattention", "SageAttention", "sageattn")

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = sage.sageattn(q, k, v, tensor_layout="HND", is_causal=False)
        return out

    return attend


_MAKERS: dict[str, tuple[Kernels, Callable[[torch.device], Attention]]] = {
    CUDNN.name: (CUDNN, lambda device: cudnn_attention),
    COMFY_KITCHEN.name: (COMFY_KITCHEN, kitchen_attention),
    SAGE.name: (SAGE, sage_attention),
}


def dense_attention(name: str, device: torch.device) -> Attention:
    """A dense backend by its name in ``PSAConfig.dense_backend``.

    Raises:
        RefusalError: its package is not installed.
    """
    return _MAKERS[name][1](device)


def dense_refusal(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a dense backend cannot run on such tensors, in a few words for a user; None when it can."""
    kernels, make = _MAKERS[name]
    try:
        make(device)
    except RefusalError as error:
        return str(error)
    return refusal(kernels, device, dtype, head_dim, _trial_of(name))


@lru_cache(maxsize=8)
def _trial_of(name: str) -> Callable[[torch.device, torch.dtype, int], None]:
    def trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
        # Numbers of a sine have no two keys alike, and leave torch's random numbers alone.
        x = torch.arange(512 * head_dim, device=device, dtype=torch.float32).mul(0.7).sin()
        x = x.view(1, 256, 2, head_dim).transpose(1, 2).to(dtype)
        logits = x.float() @ x.float().transpose(-1, -2) / math.sqrt(head_dim)
        exact = logits.softmax(-1) @ x.float()
        error = (on_device_of_first(dense_attention(name, device))(x, x, x).float() - exact).norm() / exact.norm()
        if not error < _WRONG:
            raise RuntimeError(f"its result is {float(error):.2g} away from exact attention")

    return trial


class DenseCalls:
    """Dense calls of one run, in the backend that the settings say.

    Args:
        name: of the backend.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # Why it failed on tensors of a kind, which is not tried again.
        self._failed: dict[Any, str] = {}

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Run one call.

        Raises:
            RefusalError: it cannot, or it failed; the message says why.
        """
        kind = q.shape, k.shape, q.dtype, q.device
        reason = self._failed.get(kind) or dense_refusal(self._name, q.device, q.dtype, q.shape[-1])
        if reason is None:
            try:
                return on_device_of_first(dense_attention(self._name, q.device))(q, k, v)
            except Exception as error:
                if is_out_of_memory(error):
                    raise RefusalError("out of memory") from error
                reason = self._failed[kind] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RefusalError(reason)
