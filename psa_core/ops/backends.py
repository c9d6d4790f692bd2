"""Backends: what each one can take, with a reason for every refusal."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch

from ..settings.errors import ConfigError

log = logging.getLogger(__name__)

BACKENDS = ("auto", "triton", "torch")
HEAD_DIMS = (64, 128)
_DTYPES = (torch.float16, torch.bfloat16)
# Triton has matrix instructions from Ampere on; before it, kernels spill registers and exceed shared memory.
_LEAST_CAPABILITY = (8, 0)


class BackendError(RuntimeError):
    """The backend that was asked for cannot take these tensors; the message says why and what would do."""


def triton_refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the Triton kernels cannot run on such tensors, in a few words for a user; None when they can."""
    interpreted = triton_installed() and _interpreted() and dtype != torch.bfloat16
    if device.type != "cuda" and not interpreted:
        return f"the model runs on {device.type}, not on a GPU"
    if not triton_installed():
        return "Triton is not installed"
    if head_dim not in HEAD_DIMS:
        return f"head size {head_dim} (kernels take 64 and 128)"
    if interpreted:
        return None
    if dtype not in _DTYPES:
        return f"{str(dtype).removeprefix('torch.')} (kernels take float16 and bfloat16)"
    return _device_refusal(device, dtype, head_dim)


def choose_backend(backend: str, q: torch.Tensor) -> str:
    """``"triton"`` or ``"torch"`` for tensors like q, where ``"auto"`` takes Triton whenever it can.

    Raises:
        ConfigError: no such backend.
        BackendError: ``backend`` is ``"triton"`` and the kernels cannot take q.
    """
    return choose_backend_for(backend, q.device, q.dtype, q.shape[-1])


def choose_backend_for(backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """As :func:`choose_backend`, from what it reads of q."""
    if backend not in BACKENDS:
        raise ConfigError("backend", backend, "must be one of " + ", ".join(BACKENDS))
    # The interpreter runs kernels on a CPU for tests, when asked for by name; "auto" has no use for it.
    if backend == "torch" or (backend == "auto" and device.type != "cuda"):
        return "torch"
    refusal = triton_refusal(device, dtype, head_dim)
    if refusal is None:
        return "triton"
    if backend == "triton":
        raise BackendError(f"backend = 'triton': {refusal}; use backend 'auto' or 'torch'")
    return "torch"


@lru_cache(maxsize=1)
def triton_installed() -> bool:
    """Whether Triton can be imported."""
    try:
        # Not triton alone: some packages put an empty module of that name in its place.
        import triton.language  # noqa: F401
    except Exception as error:
        if not isinstance(error, ModuleNotFoundError) or error.name != "triton":
            log.warning("Triton is installed and does not import: %s", error)
        return False
    return True


def _interpreted() -> bool:
    from .attention.triton import INTERPRETED

    return INTERPRETED


# Asked on every attention call, and the answer needs a compiler: once for a device, dtype and head size.
@lru_cache(maxsize=32)
def _device_refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than the kernels need (Ampere, compute capability 8.0)"
    try:
        _trial(device, dtype, head_dim)
    except Exception as error:
        # A missing C compiler, a Triton that does not fit the driver, too little shared memory: they show only when a
        # kernel is built and launched.
        log.warning("Triton cannot run the kernels on %s", device, exc_info=True)
        return f"Triton cannot run the kernels here ({type(error).__name__}; the log has the details)"
    return None


def _trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Run every kernel once."""
    from ..settings.config import PSAConfig
    from .attention.triton import pyramid_attention_triton
    from .block_list.build import build_block_list
    from .importance.estimators import ESTIMATORS
    from .levels.rules import levels_from_importance
    from .pyramid.rows import build_pyramid
    from .similarity.cap import similarity_cap

    config = PSAConfig(use_sim_mask=True)
    block_m, block_n, max_level = config.block_m, config.block_n, max(config.levels)
    x = torch.ones(1, 1, 2 * block_m, head_dim, device=device, dtype=dtype)
    index = torch.arange(x.shape[2], device=device)
    importance = ESTIMATORS[config.importance](x, x, block_m, block_n, "triton", index)
    cap = similarity_cap(x, config, "triton", index)
    levels = levels_from_importance(importance, config, cap, backend="triton")
    block_list = build_block_list(levels, max_level, block_n, x.shape[2], "triton")
    pyramid = build_pyramid(x, x, max_level, "triton", index)
    pyramid_attention_triton(x, x, x, block_list, pyramid, block_m, block_n, index)
