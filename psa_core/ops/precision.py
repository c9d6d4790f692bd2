"""What attention is computed in: which precisions a GPU has matrix instructions for, and which one a call gets."""

from __future__ import annotations

import torch

from .backends import triton_refusal
from .kernel_table import QUANTISED
from .launch import capability_of
from .refusals import refusal
from .trial_call import check_trial, trial_tensors

# Coarsest last: queries and keys in INT8, values in float16 or, those of level 1, in FP8.
PRECISIONS = ("bf16", "int8", "int8+fp8")
# Compute capability from which on NVIDIA's GPUs multiply FP8.
_FP8 = (8, 9)


def precisions(device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[str, ...]:
    """Those that the Triton kernels can compute such tensors in on this GPU; ``"bf16"`` means as they are."""
    if quantised_refusal(device, dtype, head_dim) is not None:
        return PRECISIONS[:1]
    return PRECISIONS if capability_of(device) >= _FP8 else PRECISIONS[:2]


def precision_that_runs(wanted: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The coarsest that is no coarser than wanted and that this GPU has.

    ``"auto"`` wants any, but on Hopper that of the tensors: the INT8 kernel there has no exact heads, and the portable
    one is no faster than that in 16 bits where rows are pooled (benchmarks/NOTES.md).
    """
    if wanted == PRECISIONS[0] or (wanted == "auto" and _has_own_kernel(device, dtype, head_dim)):
        return PRECISIONS[0]
    there = precisions(device, dtype, head_dim)
    return there[-1] if wanted == "auto" else there[min(PRECISIONS.index(wanted), len(there) - 1)]


def _has_own_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether the kernel for Hopper can run."""
    # It needs Triton, which need not be installed.
    from .attention.dispatch import hopper_refusal

    return hopper_refusal(device, dtype, head_dim) is None


def quantised_refusal(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why the INT8 kernels cannot run on such tensors, in a few words for a user; None when they can."""
    reason = triton_refusal(device, dtype, head_dim)
    # The interpreter, which needs no GPU, is the only one that the other kernels take such tensors to.
    interpreted = device.type != "cuda"
    return reason or refusal(QUANTISED, device, dtype, head_dim, _trial, interpreted=interpreted)


def _trial(device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Run the kernels once, as ``"auto"`` does, and compare what they say with the others' output.

    Raises:
        RuntimeError: it is something else.
    """
    from .attention.quantised import ExactHeads, pack_for, quantised_attention_triton
    from .attention.triton import pyramid_attention_triton
    from .block_list.build import build_block_list
    from .pyramid.rows import build_pyramid

    (x, levels), max_level = trial_tensors(device, dtype, head_dim), 2
    tensors = x, x, x, build_block_list(levels, max_level, 128, 256, "triton")
    pyramid = build_pyramid(x, x, max_level, "triton")
    expected = pyramid_attention_triton(*tensors, pyramid, 128, 128)
    packed = pack_for(x, x, PRECISIONS[2 if capability_of(device) >= _FP8 else 1], 128, 128, max_level)
    none = ExactHeads(torch.zeros(1, 1, dtype=torch.uint8, device=device), pyramid.k)
    check_trial(quantised_attention_triton(*tensors, packed, 128, 128, exact=none), expected)
