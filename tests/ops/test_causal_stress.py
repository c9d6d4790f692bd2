"""Random causal calls, and calls whose heads share keys: by the hundred on a GPU, a few in the interpreter."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable
from typing import NamedTuple

import pytest
import torch

from psa_core import PSAConfig
from psa_core.ops.attention.dispatch import pyramid_attention
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.causal import Causal, causal_levels, hidden_keys
from psa_core.ops.importance.estimators import ESTIMATORS
from psa_core.ops.levels.rules import levels_from_importance
from psa_core.ops.packed.naive import quantised_queries
from psa_core.ops.precision import PRECISIONS, precisions
from psa_core.ops.pyramid.rows import build_pyramid

from ..support.tensors import DEVICE, Shape, random_qkv
from .test_gpu_stress import (
    BOUND,
    DTYPES,
    LAYOUTS,
    MOST_TOKENS,
    bits,
    check,
    compiled_for,
    laid_out,
    of_few_variants,
    rng,
    shortfall,
    stress,
    varied_levels,
)
from .test_quantised import BOUND as QUANTISED_BOUND

__all__ = ["rng", "stress"]  # fixtures

pytestmark = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")

QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
# By so much more than of many rows, whose rounding evens out.
FEW_ROWS = 2
# Relative, of scores by kernels and by torch. Kernels round means of runs to the precision of the tokens.
IMPORTANCE_BOUND = dict.fromkeys(ESTIMATORS, 1e-3) | {"sub_block_mass": 1e-2}
RATIOS = {1: (0, 0.1), 2: (0.1, 0.3), 8: (0.3, 0.6), 0: (0.6, 1)}


class Case(NamedTuple):
    """One call: its queries and the number of heads of keys, and how its tensors lie in memory."""

    shape: Shape
    kv_heads: int
    layouts: tuple[str, str, str]
    max_level: int
    causal: bool

    @property
    def mask(self) -> Causal | None:
        shape = self.shape
        return Causal(shape.q_tokens, shape.k_tokens, shape.block_m, shape.block_n) if self.causal else None

    def variant(self) -> Hashable:
        """What Triton compiles kernels anew for: of sizes, strides and addresses alone."""
        shape, numbers = self.shape, []
        sizes = (shape.heads, shape.q_tokens), *((self.kv_heads, shape.k_tokens),) * 2
        for layout, (heads, tokens) in zip(self.layouts, sizes, strict=True):
            make, view = LAYOUTS[layout]
            x = view(torch.zeros(make(shape.batch, heads, tokens, shape.d), device="meta"))
            numbers += [*x.stride(), 2 * int(x.storage_offset())]
        return compiled_for(*numbers)

    def tensors(self, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Buffers of NaN, and queries, keys and values in them."""
        q, k, v = random_qkv(self.shape, dtype)
        own = q, k[:, : self.kv_heads], v[:, : self.kv_heads]
        return [laid_out(x, at) for x, at in zip(own, self.layouts, strict=True)]

    def attend(self, dtype: torch.dtype) -> torch.Tensor:
        """Errors of this GPU's kernel, of the portable one and of quantised ones, and whether inputs changed."""
        from psa_core.ops.attention.quantised import pack_for, quantised_attention_triton
        from psa_core.ops.attention.triton import pyramid_attention_triton

        placed = self.tensors(dtype)
        before = [bits(buffer).clone() for buffer, _ in placed]
        q, k, v = (view for _, view in placed)
        shape, hidden, mask = self.shape, None, self.mask
        sizes = shape.block_m, shape.block_n
        levels = varied_levels(shape.batch, shape.heads, shape.blocks, self.max_level)
        if mask is not None:
            levels, hidden = causal_levels(levels, mask), hidden_keys(mask, DEVICE)
        block_list = build_block_list(levels, self.max_level, shape.block_n, shape.k_tokens, "triton")
        pyramid = build_pyramid(k, v, self.max_level, "triton")
        tensors = q, k, v, block_list, pyramid
        expected = pyramid_attention_naive(q, k, v, levels, *sizes, causal=self.causal)
        errors = [
            shortfall(kernel(*tensors, *sizes, hidden=hidden), expected, FEW_ROWS * BOUND[dtype])
            for kernel in (pyramid_attention, pyramid_attention_triton)
        ]
        for precision in precisions(DEVICE, dtype, shape.d)[1:] if DEVICE.type == "cuda" else PRECISIONS[1:2]:
            packed = pack_for(k, v, precision, *sizes, self.max_level)
            out = quantised_attention_triton(q, k, v, block_list, packed, *sizes, hidden=hidden)
            rounded, rows = (quantised_queries(q), *packed.dequantised(shape.k_tokens)), packed.dequantised_rows()
            expected = pyramid_attention_naive(*rounded, levels, *sizes, rows, causal=self.causal)
            errors.append(shortfall(out, expected, FEW_ROWS * QUANTISED_BOUND[precision]))
        changed = torch.stack([(bits(x) != y).any() for (x, _), y in zip(placed, before, strict=True)]).any()
        return torch.stack([*errors, changed.double()])

    def select(self, dtype: torch.dtype, estimator: str) -> torch.Tensor:
        """The error of importance against torch's, and whether levels of one importance differ from torch's."""
        q, k = (view for _, view in self.tensors(dtype)[:2])
        shape = self.shape
        sizes = shape.block_m, shape.block_n
        estimate, mask = ESTIMATORS[estimator], self.mask
        found, expected = (estimate(q, k, *sizes, backend, causal=mask) for backend in ("triton", "torch"))
        config = PSAConfig(block_m=shape.block_m, block_n=shape.block_n, mask_ratios=RATIOS, mask_mode="topk")
        ours, theirs = (
            levels_from_importance(expected, config, backend=backend, causal=mask) for backend in ("triton", "torch")
        )
        error = shortfall(found, expected, IMPORTANCE_BOUND[estimator])
        return torch.stack([error, (ours != theirs).any().double()])


def drawn(rng: random.Random, d: int, block_m: int, block_n: int, fixed: tuple, small: bool = False) -> Case:
    """A case of these blocks; half of those that are causal have as many queries as keys."""
    group, layouts, max_level, causal = fixed
    most = 90 if small else MOST_TOKENS
    k_tokens = rng.choice([rng.randint(1, most), rng.randint(1, min(most, 200))])
    q_tokens = k_tokens if causal and rng.random() < 0.5 else rng.randint(1, k_tokens if causal else most)
    batch, kv_heads = (1, 1) if small else (rng.randint(1, 2), rng.randint(1, 3))
    shape = Shape(batch, group * kv_heads, q_tokens, k_tokens, d, block_m, block_n)
    return Case(shape, kv_heads, layouts, max_level, causal)


def kind(rng: random.Random, block_n: int, groups: tuple[int, ...], causal: bool) -> tuple:
    """What kernels are compiled for beside sizes of blocks and heads."""
    layouts = tuple(rng.choice(list(LAYOUTS)) for _ in range(3))
    max_level = rng.choice([block_n, 1 << rng.randrange(block_n.bit_length())])
    return rng.choice(groups), layouts, max_level, causal


# Heads of queries to one of keys; what is not causal is here for them.
CAUSAL_GROUPS, GROUPS = (1, 2, 7), (2, 7)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=["fp16", "bf16"])
@pytest.mark.parametrize("block_n", [32, 64, 128], ids="n{}".format)
@pytest.mark.parametrize("d", [64, 128], ids="d{}".format)
def test_attention(d: int, block_n: int, dtype: torch.dtype, rng: random.Random, stress: int) -> None:
    cases: list[Case] = []
    for block_m, causal in ((128, True), (64, True), (128, False)):
        fixed = kind(rng, block_n, CAUSAL_GROUPS if causal else GROUPS, causal)
        draw = lambda m=block_m, fixed=fixed: drawn(rng, d, m, block_n, fixed)  # noqa: E731
        cases += of_few_variants(rng, draw, Case.variant, math.ceil(stress / 3))
    check([case.attend(dtype) for case in cases], cases)


@pytest.mark.gpu
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("d", [64, 128], ids="d{}".format)
def test_importance_and_levels(d: int, estimator: str, rng: random.Random, stress: int) -> None:
    cases: list[Case] = []
    for block_n, causal in ((32, True), (128, True), (64, False)):
        fixed = kind(rng, block_n, CAUSAL_GROUPS if causal else GROUPS, causal)
        draw = lambda n=block_n, fixed=fixed: drawn(rng, d, 128, n, fixed)  # noqa: E731
        cases += of_few_variants(rng, draw, Case.variant, math.ceil(stress / 3))
    dtypes = [rng.choice(DTYPES) for _ in cases]
    check([case.select(*how, estimator) for case, *how in zip(cases, dtypes, strict=True)], cases)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a GPU runs them by the hundred")
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "grouped"])
def test_a_few_in_the_interpreter(causal: bool, rng: random.Random) -> None:
    for block_n in (32, 128):
        case = drawn(rng, 64, 64, block_n, kind(rng, block_n, (1, 2) if causal else (2,), causal), small=True)
        check([case.attend(torch.float16)], [case])
        estimator = rng.choice(list(ESTIMATORS))
        check([case.select(torch.float16, estimator)], [(case, estimator)])
