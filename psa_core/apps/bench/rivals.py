"""Other attention on the same tensors: torch's backends, comfy-kitchen's INT8 and Sol-Attn."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...ops.backends import BackendError
from .cases import Case
from .checks import error_from_dense
from .inputs import Inputs
from .results import Row
from .timing import Contender

CUDNN, FLASH = "cuDNN SDPA", "FlashAttention-2"
INT8, SOL = "comfy-kitchen INT8", "comfy-kitchen Sol-Attn"

# INT8 rounds keys, queries and weights; Sol-Attn leaves most of the exact result out by design.
_INT8_BOUND, _SOL_BOUND = 0.2, math.inf


class RefusalError(RuntimeError):
    """A rival cannot take part; the message says why in a few words."""


def sdpa_contender(
    part: str, case: Case, inputs: Inputs, backend: SDPBackend = SDPBackend.CUDNN_ATTENTION
) -> Contender:
    """Torch's dense attention. cuDNN's, the fastest one on current GPUs, is the dense backend of the benchmark."""
    dense = backend == SDPBackend.CUDNN_ATTENTION
    call = functools.partial(torch.nn.functional.scaled_dot_product_attention, *inputs)
    context = functools.partial(sdpa_kernel, backend)

    def in_context() -> torch.Tensor:
        try:
            with context():
                return call()
        except RuntimeError as error:
            if not dense:
                raise
            raise BackendError(f"psa bench: cuDNN's attention does not run here: {error}") from None

    row = Row.of(part, case, CUDNN if dense else FLASH)
    return Contender(row, call, context, lambda: error_from_dense(in_context(), inputs), rival=not dense)


def int8_contender(part: str, case: Case, inputs: Inputs) -> Contender:
    """Dense attention in INT8."""
    kitchen = _comfy_kitchen("int8_attention")
    if not kitchen.int8_attention_is_available(inputs.q.device):
        raise RefusalError("its INT8 kernels do not run on this GPU")
    call = functools.partial(kitchen.int8_attention, *inputs)
    row = Row.of(part, case, INT8)
    return Contender(row, call, error=lambda: error_from_dense(call(), inputs), bound=_INT8_BOUND, rival=True)


def sol_contender(part: str, case: Case, inputs: Inputs, density: float) -> Contender:
    """Sparse attention in INT8: this share of 64-key blocks exactly, one pooled row for each other block."""
    kitchen = _comfy_kitchen("sol_attn")
    if case.head_dim != 128:
        raise RefusalError(f"head size {case.head_dim} (Sol-Attn takes 128)")
    # Without this it would quietly compute in plain torch.
    if not kitchen.sol_attn_is_available(inputs.q.device):
        raise RefusalError("its kernels do not run on this GPU")
    tokens_first = [x.transpose(1, 2) for x in inputs]

    def call() -> torch.Tensor:
        return kitchen.sol_attn(*tokens_first, topk_ratio=density).transpose(1, 2)

    row = Row.of(part, case, SOL, block_n=64, density=density, tail=True)
    return Contender(row, call, error=lambda: error_from_dense(call(), inputs), bound=_SOL_BOUND, rival=True)


def rival_contenders(part: str, case: Case, inputs: Inputs, density: float) -> Iterator[Contender | Row]:
    """Every rival of the dense backend, as a contender or as a row that says why it takes no part."""
    flash = functools.partial(sdpa_contender, backend=SDPBackend.FLASH_ATTENTION)
    makers: tuple[tuple[Row, Callable[[], Contender]], ...] = (
        (Row.of(part, case, FLASH), functools.partial(flash, part, case, inputs)),
        (Row.of(part, case, INT8), functools.partial(int8_contender, part, case, inputs)),
        (Row.of(part, case, SOL), functools.partial(sol_contender, part, case, inputs, density)),
    )
    for row, make in makers:
        try:
            yield make()
        except RefusalError as refusal:
            yield row.replace(refusal=str(refusal))


def _comfy_kitchen(function: str) -> Any:
    try:
        kitchen = importlib.import_module("comfy_kitchen")
    except ModuleNotFoundError as error:
        raise RefusalError("comfy-kitchen is not installed" if error.name == "comfy_kitchen" else str(error)) from None
    except (ImportError, OSError) as error:
        raise RefusalError(f"comfy-kitchen does not import: {error}") from None
    if not hasattr(kitchen, function):
        raise RefusalError(f"this comfy-kitchen has no {function}")
    return kitchen
