"""Other attention on the same tensors: torch's backends, FlexAttention, comfy-kitchen's INT8 and Sol-Attn."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from ...ops.backends import BackendError
from ...ops.importance.estimators import mean
from .cases import BLOCK_M, Case
from .checks import all_full, error_from_levels
from .inputs import Inputs
from .results import Row
from .timing import Contender

CUDNN, FLASH, FLEX = "cuDNN SDPA", "FlashAttention-2", "FlexAttention"
INT8, SOL = "comfy-kitchen INT8", "comfy-kitchen Sol-Attn"
BLOCK_N = 128

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
    return Contender(row, call, context, functools.partial(_dense_error, in_context, inputs), rival=not dense)


def flex_contender(part: str, case: Case, inputs: Inputs, density: float) -> Contender:
    """FlexAttention on level 1 blocks alone: it cannot pool, so it gets the share of blocks that has the same density.

    The blocks are those of most importance by block means, chosen before the clock starts.
    """
    kept = top_blocks(inputs, density)
    row = Row.of(part, case, FLEX, block_n=BLOCK_N, density=density, reached_density=float(kept.float().mean()))
    return flex_contender_of(row, case, inputs, kept)


def flex_contender_of(row: Row, case: Case, inputs: Inputs, kept: torch.Tensor) -> Contender:
    """FlexAttention on these blocks, bool ``[1, H | 1, q_blocks, k_blocks]``."""
    call = functools.partial(_compiled_flex(), *inputs, block_mask=flex_block_mask(kept, case.tokens))
    levels = kept.to(torch.uint8)
    return Contender(row, call, error=lambda: error_from_levels(call(), inputs, levels, BLOCK_N), rival=True)


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def forget_compiled() -> None:
    """Drop what torch has compiled: it compiles FlexAttention for each shape and gives up after a few of them."""
    torch._dynamo.reset()


def top_blocks(inputs: Inputs, density: float) -> torch.Tensor:
    """The most important key blocks of each query block: bool ``[1, H, q_blocks, k_blocks]``, the same count a row."""
    importance = mean(inputs.q, inputs.k, BLOCK_M, BLOCK_N)
    count = max(1, math.ceil(density * importance.shape[-1] - 1e-9))
    kept = torch.zeros_like(importance, dtype=torch.bool)
    return kept.scatter_(-1, importance.topk(count, -1).indices, True)


def flex_block_mask(kept: torch.Tensor, length: int) -> BlockMask:
    """The block mask of the kept blocks, all of them whole, so that no mask function runs."""
    counts = kept.sum(-1, dtype=torch.int32)
    blocks = kept.to(torch.uint8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    none = torch.zeros_like(counts)
    return BlockMask.from_kv_blocks(
        none, blocks, counts, blocks, BLOCK_SIZE=(BLOCK_M, BLOCK_N), seq_lengths=(length, length)
    )


def int8_contender(part: str, case: Case, inputs: Inputs) -> Contender:
    """Dense attention in INT8."""
    kitchen = _comfy_kitchen("int8_attention")
    if not kitchen.int8_attention_is_available(inputs.q.device):
        raise RefusalError("its INT8 kernels do not run on this GPU")
    call = functools.partial(kitchen.int8_attention, *inputs)
    error = functools.partial(_dense_error, call, inputs)
    return Contender(Row.of(part, case, INT8), call, error=error, bound=_INT8_BOUND, rival=True)


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
    error = functools.partial(_dense_error, call, inputs)
    return Contender(row, call, error=error, bound=_SOL_BOUND, rival=True)


def rival_contenders(part: str, case: Case, inputs: Inputs, density: float) -> Iterator[Contender | Row]:
    """Every rival of the dense backend, as a contender or as a row that says why it takes no part."""
    flash = functools.partial(sdpa_contender, backend=SDPBackend.FLASH_ATTENTION)
    makers: tuple[tuple[Row, Callable[[], Contender]], ...] = (
        (Row.of(part, case, FLASH), functools.partial(flash, part, case, inputs)),
        (Row.of(part, case, FLEX), functools.partial(flex_contender, part, case, inputs, density)),
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


def _dense_error(call: Callable[[], torch.Tensor], inputs: Inputs) -> float:
    return error_from_levels(call(), inputs, all_full(inputs, BLOCK_N), BLOCK_N)
