"""Why kernels of the table cannot take a call."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch

from ..settings.errors import ConfigError
from .compiling import compiles_ahead
from .kernel_table import TABLE, Kernels
from .modes import plain_tensors
from .triton_version import triton_version

log = logging.getLogger(__name__)

# Names the best kernels of the table that may run; "auto" leaves all of them in.
BACKEND_VARIABLE = "PSA_BACKEND"

Trial = Callable[[torch.device, torch.dtype, int], None]


def refusal(
    kernels: Kernels,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    trial: Trial,
    *,
    installed: bool = True,
    interpreted: bool = False,
) -> str | None:
    """What of the table rules such tensors out, in a few words for a user; None when nothing does.

    Args:
        trial: runs the kernels once on such tensors.
        installed: whether Triton is there.
        interpreted: whether an interpreter runs the kernels, which needs no GPU.

    Raises:
        ConfigError: the environment variable ``PSA_BACKEND`` has no such value.
    """
    if kernels in taken_out():
        return f"{BACKEND_VARIABLE} = {os.environ[BACKEND_VARIABLE]} takes {kernels.what} out"
    vendor = "NVIDIA" if torch.version.hip is None else "AMD"
    if not interpreted and (device.type != "cuda" or vendor not in kernels.vendors):
        return kernels.no_gpu.format(device=device.type)
    if not installed:
        return "Triton is not installed"
    if head_dim not in kernels.head_sizes:
        return f"head size {head_dim} (kernels take {' and '.join(map(str, kernels.head_sizes))})"
    if interpreted:
        return None
    if dtype not in kernels.dtypes:
        return f"{_name(dtype)} (kernels take {' and '.join(map(_name, kernels.dtypes))})"
    try:
        if compiles_ahead():
            return _refusal_ahead(kernels, device, dtype, head_dim, trial)
        return device_refusal(kernels, device, dtype, head_dim, trial)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # Other models come and go: it says nothing about the kernels, which the next call tries again.
        log.warning("PSA: no free memory on %s to try %s; the next call tries again", device, kernels.what)
        return f"no free memory to try {kernels.what}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is short at the moment; kernels that want more shared memory than there is are another matter."""
    # Drivers, and Triton's launches with them, say it in an error of no type of its own.
    said = isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def taken_out() -> tuple[Kernels, ...]:
    """The kernels that the environment variable ``PSA_BACKEND`` takes out.

    Raises:
        ConfigError: it has no such value.
    """
    return _taken_out(os.environ.get(BACKEND_VARIABLE) or "auto")


# Asked on every attention call.
@lru_cache(maxsize=8)
def _taken_out(value: str) -> tuple[Kernels, ...]:
    names = ["auto", *(kernels.name for kernels in TABLE[1:])]
    if value not in names:
        raise ConfigError(BACKEND_VARIABLE, value, "must be one of " + ", ".join(names))
    return TABLE[: names.index(value)]


# Asked on every attention call, and the answer needs a compiler: once for a device, dtype and head size.
@lru_cache(maxsize=64)
def device_refusal(
    kernels: Kernels, device: torch.device, dtype: torch.dtype, head_dim: int, trial: Trial
) -> str | None:
    """Why the kernels cannot run on a GPU: Triton's version, its capability, or what their trial raises.

    Raises:
        Exception: there was no memory for the trial, which is no answer and is not kept.
    """
    if kernels.triton is not None and (found := triton_version()) < kernels.triton:
        return (
            f"Triton {_dotted(found)} is older than the kernels need ({_dotted(kernels.triton)}, from PyTorch 2.7 on)"
        )
    if kernels.capability is not None and torch.version.hip is None:
        oldest, newest = kernels.capability
        capability = torch.cuda.get_device_capability(device)
        beyond = newest is not None and capability > newest
        if capability < oldest or beyond or capability[0] in kernels.lacking:
            return kernels.other_gpu.format(gpu=torch.cuda.get_device_name(device))
    try:
        with plain_tensors():
            trial(device, dtype, head_dim)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        log.warning(kernels.warning.format(device=device), exc_info=True)
        return f"{kernels.fails} ({type(error).__name__}; the log has the details)"
    return None


def _refusal_ahead(
    kernels: Kernels, device: torch.device, dtype: torch.dtype, head_dim: int, trial: Trial
) -> str | None:
    """As :func:`device_refusal` without a trial, whose kernels are only compiled."""

    def compiled(*tensors: Any) -> None:
        # What it makes of outputs that nobody wrote says nothing.
        with suppress(RuntimeError):
            trial(*tensors)

    reason: str | None = device_refusal.__wrapped__(kernels, device, dtype, head_dim, compiled)
    return reason


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
