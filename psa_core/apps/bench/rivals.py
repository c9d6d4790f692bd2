"""Other attention on the same tensors: torch's backends, SageAttention, comfy-kitchen's INT8 and Sol-Attn, a host's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...ops.backends import BackendError
from ...ops.dense_backends import Attention, RefusalError, installed, kitchen_attention, sage_attention
from .cases import Case
from .checks import error_from_dense
from .inputs import Inputs
from .results import Row
from .timing import Contender

TORCH, CUDNN, FLASH = "torch SDPA", "cuDNN SDPA", "FlashAttention-2"
SAGE, INT8, SOL = "SageAttention", "comfy-kitchen INT8", "comfy-kitchen Sol-Attn"
_NAMES = {SDPBackend.CUDNN_ATTENTION: CUDNN, SDPBackend.FLASH_ATTENTION: FLASH, None: TORCH}

# INT8 and FP8 round keys, queries and weights; Sol-Attn leaves most of the exact result out by design.
_INT8_BOUND, _SOL_BOUND = 0.2, math.inf
_SOL_BLOCK = 64


def sdpa_contender(
    part: str, case: Case, inputs: Inputs, backend: SDPBackend | None = SDPBackend.CUDNN_ATTENTION
) -> Contender:
    """Torch's dense attention. cuDNN's, the fastest one on current GPUs, is the dense backend of the benchmark.

    Args:
        backend: None leaves the choice to torch.
    """
    dense = backend == SDPBackend.CUDNN_ATTENTION
    call = functools.partial(torch.nn.functional.scaled_dot_product_attention, *inputs)
    context = nullcontext if backend is None else functools.partial(sdpa_kernel, backend)

    def in_context() -> torch.Tensor:
        try:
            with context():
                return call()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not dense:
                raise
            raise BackendError(f"cuDNN's attention does not run here: {error}") from None

    row = Row.of(part, case, _NAMES[backend])
    return Contender(row, call, context, lambda: error_from_dense(in_context(), inputs), rival=not dense)


def host_contender(part: str, case: Case, inputs: Inputs, name: str, attention: Attention) -> Contender:
    """The dense attention of a host, which takes and gives ``[B, H, L, D]`` and may be a quantised one."""
    call = functools.partial(attention, *inputs)
    row = Row.of(part, case, name)
    return Contender(row, call, error=lambda: error_from_dense(call(), inputs), bound=_INT8_BOUND, rival=True)


def sage_contender(part: str, case: Case, inputs: Inputs) -> Contender:
    """Dense attention in INT8 and FP8 or FP16, as the package picks for the GPU."""
    call = functools.partial(sage_attention(inputs.q.device), *inputs)
    row = Row.of(part, case, SAGE)
    return Contender(row, call, error=lambda: error_from_dense(call(), inputs), bound=_INT8_BOUND, rival=True)


def int8_contender(part: str, case: Case, inputs: Inputs) -> Contender:
    """Dense attention in INT8."""
    call = functools.partial(kitchen_attention(inputs.q.device), *inputs)
    row = Row.of(part, case, INT8)
    return Contender(row, call, error=lambda: error_from_dense(call(), inputs), bound=_INT8_BOUND, rival=True)


def sol_contender(part: str, case: Case, inputs: Inputs, density: float) -> Contender:
    """Sparse attention in INT8: this share of 64-key blocks exactly, one pooled row for each other block.

    Text is its sink: all queries have its keys exactly, and its own have all.
    """
    attend = sol_attention(inputs.q.device, case.head_dim)
    call = functools.partial(attend, *inputs, density, sinks=case.text_length)
    row = Row.of(part, case, SOL, block_n=64, density=density, tail=True)
    return Contender(row, call, error=lambda: error_from_dense(call(), inputs), bound=_SOL_BOUND, rival=True)


def sol_attention(device: torch.device, head_dim: int = 128) -> Callable[..., torch.Tensor]:
    """Sol-Attn of q, k, v ``[B, H, L, D]``, a density, and the number of tokens in front that are sinks.

    Raises:
        RefusalError: it cannot take part.
    """
    kitchen = installed("comfy_kitchen", "comfy-kitchen", "sol_attn")
    if head_dim != 128:
        raise RefusalError(f"head size {head_dim} (Sol-Attn takes 128)")
    # Without this it would quietly compute in plain torch.
    if not kitchen.sol_attn_is_available(device):
        raise RefusalError("its kernels do not run on this GPU")

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, density: float, sinks: int = 0) -> torch.Tensor:
        tokens_first = (x.transpose(1, 2) for x in (q, k, v))
        blocks = [0, math.ceil(sinks / _SOL_BLOCK)]
        exact = {"sink_blocks": blocks, "sink_q": blocks} if sinks else {}
        return kitchen.sol_attn(*tokens_first, topk_ratio=density, **exact).transpose(1, 2)

    return attend


def rival_contenders(part: str, case: Case, inputs: Inputs, density: float) -> Iterator[Contender | Row]:
    """Every rival of the dense backend, as a contender or as a row that says why it takes no part."""
    yield from dense_rivals(part, case, inputs)
    yield taking_part(Row.of(part, case, SOL), functools.partial(sol_contender, part, case, inputs, density))


def dense_rivals(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    """Those that compute the whole of attention."""
    flash = functools.partial(sdpa_contender, backend=SDPBackend.FLASH_ATTENTION)
    for name, make in ((FLASH, flash), (INT8, int8_contender), (SAGE, sage_contender)):
        yield taking_part(Row.of(part, case, name), functools.partial(make, part, case, inputs))


def taking_part(row: Row, make: Callable[[], Contender]) -> Contender | Row:
    """What is made, or the row that says why it takes no part."""
    try:
        return make()
    except RefusalError as refusal:
        return row.replace(refusal=str(refusal))
