"""Backends: which one runs, and why another cannot."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache

import torch

from ..settings.errors import ConfigError
from .kernel_table import HOPPER, PORTABLE, TABLE, Kernels
from .modes import plain_tensors

log = logging.getLogger(__name__)

BACKENDS = ("auto", "triton", "torch")
# Names the best kernels of the table that may run; "auto" leaves all of them in.
BACKEND_VARIABLE = "PSA_BACKEND"

Trial = Callable[[torch.device, torch.dtype, int], None]


class BackendError(RuntimeError):
    """The backend that was asked for cannot take these tensors; the message says why and what would do."""


def triton_refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the Triton kernels cannot run on such tensors, in a few words for a user; None when they can.

    Raises:
        ConfigError: the environment variable ``PSA_BACKEND`` has no such value.
    """
    return _refusal(PORTABLE, device, dtype, head_dim, _trial)


def hopper_refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the kernel for Hopper cannot run on tensors that the Triton kernels take; None when it can."""
    return _refusal(HOPPER, device, dtype, head_dim, _hopper_trial)


def check_backend(backend: str) -> None:
    """See that there is such a backend, and that the environment variable ``PSA_BACKEND`` has a value that means one.

    Raises:
        ConfigError: there is not, or it has not.
    """
    if backend not in BACKENDS:
        raise ConfigError("backend", backend, "must be one of " + ", ".join(BACKENDS))
    _taken_out()


def choose_backend(backend: str, q: torch.Tensor) -> str:
    """``"triton"`` or ``"torch"`` for tensors like q, where ``"auto"`` takes Triton whenever it can.

    Raises:
        ConfigError: no such backend.
        BackendError: ``backend`` is ``"triton"`` and the kernels cannot take q.
    """
    return choose_backend_for(backend, q.device, q.dtype, q.shape[-1])


def choose_backend_for(backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """As :func:`choose_backend`, from what it reads of q."""
    check_backend(backend)
    # The interpreter runs kernels on a CPU for tests, when asked for by name; "auto" has no use for it.
    if backend == "torch" or (backend == "auto" and device.type != "cuda"):
        return "torch"
    refusal = triton_refusal(device, dtype, head_dim)
    if refusal is None:
        return "triton"
    if backend == "triton":
        raise BackendError(f"backend = 'triton': {refusal}; use backend 'auto' or 'torch'")
    return "torch"


def _taken_out() -> tuple[Kernels, ...]:
    """The kernels that the environment variable takes out."""
    value = os.environ.get(BACKEND_VARIABLE) or "auto"
    names = ["auto", *(kernels.name for kernels in TABLE[1:])]
    if value not in names:
        raise ConfigError(BACKEND_VARIABLE, value, "must be one of " + ", ".join(names))
    return TABLE[: names.index(value)]


def _refusal(kernels: Kernels, device: torch.device, dtype: torch.dtype, head_dim: int, trial: Trial) -> str | None:
    """What of the table rules such tensors out, or the trial of the kernels."""
    if kernels in _taken_out():
        return f"{BACKEND_VARIABLE} = {os.environ[BACKEND_VARIABLE]} takes {kernels.what} out"
    interpreted = triton_installed() and _interpreted() and dtype != torch.bfloat16 and kernels is PORTABLE
    vendor = "NVIDIA" if torch.version.hip is None else "AMD"
    if not interpreted and (device.type != "cuda" or vendor not in kernels.vendors):
        return kernels.no_gpu.format(device=device.type)
    if not triton_installed():
        return "Triton is not installed"
    if head_dim not in kernels.head_sizes:
        return f"head size {head_dim} (kernels take {' and '.join(map(str, kernels.head_sizes))})"
    if interpreted:
        return None
    if dtype not in kernels.dtypes:
        return f"{_name(dtype)} (kernels take {' and '.join(map(_name, kernels.dtypes))})"
    return _device_refusal(kernels, device, dtype, head_dim, trial)


# Asked on every attention call, and the answer needs a compiler: once for a device, dtype and head size.
@lru_cache(maxsize=64)
def _device_refusal(
    kernels: Kernels, device: torch.device, dtype: torch.dtype, head_dim: int, trial: Trial
) -> str | None:
    if kernels.capability is not None and torch.version.hip is None:
        oldest, newest = kernels.capability
        capability = torch.cuda.get_device_capability(device)
        if capability < oldest or (newest is not None and capability > newest):
            return kernels.other_gpu.format(gpu=torch.cuda.get_device_name(device))
    try:
        with plain_tensors():
            trial(device, dtype, head_dim)
    except Exception as error:
        log.warning(kernels.warning.format(device=device), exc_info=True)
        return f"{kernels.fails} ({type(error).__name__}; the log has the details)"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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


def _hopper_trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Run the kernel for Hopper once, with and without an index."""
    from .attention.hopper import pyramid_attention_hopper
    from .block_list.build import build_block_list
    from .pyramid.rows import build_pyramid

    x = torch.ones(1, 1, 256, head_dim, device=device, dtype=dtype)
    block_list = build_block_list(torch.ones(1, 1, 2, 2, dtype=torch.uint8, device=device), 8, 128, 256, "triton")
    for index in (None, torch.arange(256, device=device)):
        pyramid_attention_hopper(x, x, x, block_list, build_pyramid(x, x, 8, "triton", index), 128, index)
