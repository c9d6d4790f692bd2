"""Backends: which one runs, and why another cannot."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch

from ..settings.errors import ConfigError
from .kernel_table import HOPPER, PORTABLE, Kernels
from .modes import wants_gradients
from .refusals import refusal, taken_out

log = logging.getLogger(__name__)

BACKENDS = ("auto", "triton", "torch")


class BackendError(RuntimeError):
    """The backend that was asked for cannot take these tensors; the message says why and what would do."""


def triton_refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the Triton kernels cannot run on such tensors, in a few words for a user; None when they can.

    Raises:
        ConfigError: the environment variable ``PSA_BACKEND`` has no such value.
    """
    installed = triton_installed()
    # The interpreter knows what numpy does.
    interpreted = installed and _interpreted() and dtype != torch.bfloat16
    return refusal(PORTABLE, device, dtype, head_dim, _trial, installed=installed, interpreted=interpreted)


def refusals(device: torch.device, dtype: torch.dtype, head_dim: int) -> dict[Kernels, str | None]:
    """Of each set of Triton kernels why it cannot run on such tensors; None where it can. Errors as there."""
    portable = hopper = triton_refusal(device, dtype, head_dim)
    if portable is None:
        from .attention.dispatch import hopper_refusal

        hopper = hopper_refusal(device, dtype, head_dim)
    return {PORTABLE: portable, HOPPER: hopper}


def check_backend(backend: str) -> None:
    """See that there is such a backend, and that the environment variable ``PSA_BACKEND`` has a value that means one.

    Raises:
        ConfigError: there is not, or it has not.
    """
    if backend not in BACKENDS:
        raise ConfigError("backend", backend, "must be one of " + ", ".join(BACKENDS))
    taken_out()


def choose_backend(backend: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str:
    """``"triton"`` or ``"torch"`` for a call, where ``"auto"`` takes Triton whenever it can.

    Args:
        q, k, v: of one device, dtype and head size.

    Raises:
        ConfigError: no such backend.
        BackendError: ``backend`` is ``"triton"`` and the kernels cannot take the call.
    """
    if wants_gradients(q, k, v):
        check_backend(backend)
        if backend == "triton":
            raise BackendError(
                "backend = 'triton': the kernels have no gradients, which q, k or v require; use backend 'auto' or "
                "'torch', or torch.no_grad"
            )
        return "torch"
    return choose_backend_for(backend, q.device, q.dtype, q.shape[-1])


def choose_backend_for(backend: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """As :func:`choose_backend`, from what it reads of q."""
    check_backend(backend)
    # The interpreter runs kernels on a CPU for tests, when asked for by name; "auto" has no use for it.
    if backend == "torch" or (backend == "auto" and device.type != "cuda"):
        return "torch"
    reason = triton_refusal(device, dtype, head_dim)
    if reason is None:
        return "triton"
    if backend == "triton":
        raise BackendError(f"backend = 'triton': {reason}; use backend 'auto' or 'torch'")
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


def triton_release() -> str | None:
    """The version of the Triton that can be imported, as it calls itself; None where there is none."""
    if not triton_installed():
        return None
    import triton

    version: str = triton.__version__
    return version


def _interpreted() -> bool:
    from .attention.triton import INTERPRETED

    return INTERPRETED


def _trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Run every kernel once, as calibrated attention does, so that Triton compiles little that no run calls."""
    from ..settings.config import PSAConfig
    from .attention.triton import pyramid_attention_triton
    from .block_list.build import build_block_list
    from .importance.estimators import ESTIMATORS
    from .levels.rules import levels_from_importance
    from .pyramid.rows import build_pyramid
    from .reorder.orders import as_they_lie
    from .similarity.cap import similarity_cap

    config = PSAConfig(use_sim_mask=True)
    block_m, block_n, max_level = config.block_m, config.block_n, config.block_n
    x = torch.ones(1, 1, 2 * block_m, head_dim, device=device, dtype=dtype)
    orders = as_they_lie(1, 1, x.shape[2], device)
    importance = ESTIMATORS[config.importance](x, x, block_m, block_n, "triton", orders)
    cap = similarity_cap(x, config, "triton", orders)
    levels = levels_from_importance(importance, config, cap, backend="triton")
    block_list = build_block_list(levels, max_level, block_n, x.shape[2], "triton")
    pyramid = build_pyramid(x, x, max_level, "triton", orders)
    # Two blocks of the 64 queries that errors are measured on.
    some = x[:, :, :block_m]
    pyramid_attention_triton(some, x, x, block_list, pyramid, 64, block_n, orders, as_they_lie(1, 1, block_m, device))
