"""Causal attention of long prompts: ``python -m benchmarks.causal`` (an NVIDIA GPU).

By default in the shape of Qwen2.5-VL-7B: 28 heads of queries, 4 of keys, of size 128. Milliseconds of dense attention
by FlashAttention and by cuDNN, and of PSA by estimator and precision. First it sees that PSA with every block at level
1 is dense attention.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.apps.bench.cases import mask_ratios
from psa_core.apps.bench.checks import judge, relative_error

from .gpu import need_gpu

LENGTHS = (32768, 65536, 131072)
DENSITY = 0.15
# Of bfloat16's rounding.
BOUND = 1e-2
_CHECKED = 5003
_CALLS = 5
_LINE = "{:<10}{:<36}{:>12}{:>8}{:>10}"


class Heads(NamedTuple):
    """Heads of queries, heads of keys, and their size."""

    queries: int = 28
    keys: int = 4
    size: int = 128


def prompt(tokens: int, heads: Heads, device: str = "cuda") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random queries, keys and values as a language model hands them over: views of ``[1, L, H, D]``."""
    counts = heads.queries, heads.keys, heads.keys
    q, k, v = (torch.randn(1, tokens, n, heads.size, device=device).bfloat16().transpose(1, 2) for n in counts)
    return 2 * q, k, v


def check(heads: Heads, device: str = "cuda", backend: str = "triton", tokens: int = _CHECKED) -> float:
    """The relative error of PSA where every block is at level 1.

    Raises:
        WrongResultError: it is more than rounding.
    """
    q, k, v = prompt(tokens, heads, device)
    out = pyramid_sparse_attention(q, k, v, PSAConfig(mask_ratios={1: (0, 1)}), causal=True, backend=backend)
    error = relative_error(out, dense(*(x.float() for x in (q, k, v))))
    judge("PSA at level 1", error, BOUND)
    return error


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Torch's causal attention of as many queries as keys."""
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def contenders(tokens: int, heads: Heads, density: float) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is measured, by name; the dense ones first."""
    q, k, v = prompt(tokens, heads)
    repeated = (x.repeat_interleave(heads.queries // heads.keys, 1) for x in (k, v))
    for name, backend in (("FlashAttention", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
        yield f"dense, {name}", partial(_by, backend, q, *repeated if name == "cuDNN" else (k, v))
    ratios: dict[str, Any] = {"mask_mode": "topk", "mask_ratios": mask_ratios(density)}
    kinds: dict[str, dict[str, Any]] = {
        "PSA, sampled_max": ratios,
        "PSA, mean": ratios | {"importance": "mean"},
        "PSA, sampled_max, int8+fp8": ratios | {"precision": "int8+fp8"},
        "PSA, calibrated": {"mask_mode": "calibrated", "target_density": density},
    }
    for name, settings in kinds.items():
        yield name, partial(pyramid_sparse_attention, q, k, v, PSAConfig(**settings), causal=True, return_info=True)


def milliseconds(call: Callable[[], Any]) -> float:
    """Of the fastest of some calls on the GPU."""
    call()
    found = []
    for _ in range(_CALLS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        after.synchronize()
        found.append(before.elapsed_time(after))
    return min(found)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.causal", description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--density", type=float, default=DENSITY, help="of the block pairs that the mask leaves")
    parser.add_argument("--heads", type=int, nargs=3, default=Heads(), help="of queries, of keys, and their size")
    parsed = parser.parse_args(argv)
    need_gpu(parser)
    heads = Heads(*parsed.heads)
    torch.manual_seed(0)
    print(f"error at level 1: {check(heads):.4f}", flush=True)
    print(_LINE.format("tokens", "attention", "time", "gain", "density"))
    for tokens in parsed.lengths:
        fastest = float("inf")
        for name, call in contenders(tokens, heads, parsed.density):
            ms = milliseconds(call)
            sparse = name.startswith("PSA")
            fastest = fastest if sparse else min(fastest, ms)
            reached = f"{float(call()[1].density):.3f}" if sparse else ""
            gain = f"{fastest / ms:.2f}x" if sparse else ""
            print(_LINE.format(f"{tokens:,}", name, f"{ms:.2f} ms", gain, reached), flush=True)


def _by(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(backend):
        return dense(q, k, v)


if __name__ == "__main__":
    main()
