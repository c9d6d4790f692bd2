"""Whole attention op against cuDNN's dense attention, in one run on one GPU: ``python benchmarks/attention.py``.

Correctness is checked before a time is printed. Inputs are random, so the level map is one of fixed quotas.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from psa_core import PSAConfig, pyramid_sparse_attention
from psa_core.attention import plan_levels
from psa_core.ops.attention.torch import pyramid_attention_torch
from psa_core.ops.attention.triton import pyramid_attention_triton
from psa_core.pyramid import build_pyramid


class Case(NamedTuple):
    """One model at one size: tokens are ``text + prod(grid)``."""

    name: str
    heads: int
    head_dim: int
    grid: tuple[int, int, int]
    text: int = 0


CASES = (
    Case("Wan 1.3B 720p 69f", 12, 128, (18, 45, 80)),
    Case("Wan 14B 480p 81f", 40, 128, (21, 30, 52)),
    Case("CogVideoX-5B", 48, 64, (13, 30, 45), 226),
    Case("CogVideoX1.5-5B", 48, 64, (11, 48, 85), 226),
)
RATIOS = {1: (0.0, 0.1), 2: (0.1, 0.15), 8: (0.15, 0.35), 0: (0.35, 1.0)}


def median_ms(call: Callable[[], object], repeats: int = 9) -> float:
    """Median of CUDA-event timings after two warm-up calls."""
    times = []
    for i in range(repeats + 2):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        if i >= 2:
            times.append(start.elapsed_time(stop))
    return statistics.median(times)


def random_qkv(case: Case, heads: int) -> list[torch.Tensor]:
    """q, k and v ``[1, heads, L, D]`` with the strides that models give them."""
    shape = (1, case.text + math.prod(case.grid), heads, case.head_dim)
    return [torch.randn(shape, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in range(3)]


def relative_error(case: Case, config: PSAConfig) -> float:
    """Triton in bf16 against plain torch in float32 on the same level map, for one head."""
    q, k, v = random_qkv(case, heads=1)
    levels = plan_levels(q, k, config, case.text, backend="triton")
    blocks, max_level = (config.block_m, config.block_n), max(config.levels)
    out = pyramid_attention_triton(q, k, v, levels, build_pyramid(k, v, max_level), *blocks)
    q, k, v = (x.float() for x in (q, k, v))
    reference = pyramid_attention_torch(q, k, v, levels, build_pyramid(k, v, max_level), *blocks)
    return float((out - reference).norm() / reference.norm())


def measure(case: Case, block_n: int) -> str:
    """One row of the table."""
    config = PSAConfig(block_n=block_n, mask_ratios=RATIOS, mask_mode="topk")
    error = relative_error(case, config)
    if not error < 1e-2:
        raise SystemExit(f"{case.name}: relative error {error}")
    q, k, v = random_qkv(case, case.heads)
    sparse = functools.partial(
        pyramid_sparse_attention, q, k, v, config, grid=case.grid, text_length=case.text, backend="triton"
    )
    _, info = sparse(return_info=True)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        dense_ms = median_ms(functools.partial(torch.nn.functional.scaled_dot_product_attention, q, k, v))
    sparse_ms = median_ms(sparse)
    return (
        f"{case.name:20} {q.shape[2]:7} {block_n:7} {float(info.density):7.3f} {error:7.4f} "
        f"{dense_ms:5.1f} ms {sparse_ms:5.1f} ms {dense_ms / sparse_ms:5.2f}x"
    )


def main() -> None:
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, dense = cuDNN SDPA")
    print(f"{'case':20} {'tokens':>7} {'block_n':>7} {'density':>7} {'error':>7} {'dense':>8} {'PSA':>8} {'ratio':>6}")
    for case in CASES:
        for block_n in (128, 32):
            print(measure(case, block_n), flush=True)


if __name__ == "__main__":
    main()
