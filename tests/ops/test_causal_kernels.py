"""Kernels under the causal mask, and with several heads of queries to one of keys, against the oracles."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core import PSAConfig
from psa_core.attention.attend import attend
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.block_positions import block_positions
from psa_core.ops.causal import Causal, causal_levels, hidden_keys, visible_blocks
from psa_core.ops.importance.by_head import importance_by_head
from psa_core.ops.importance.estimators import ESTIMATORS
from psa_core.ops.importance.naive import mean_naive, sampled_max_naive, sampled_sum_naive, sub_block_mass_naive
from psa_core.ops.importance.sampling import sample_positions
from psa_core.ops.levels.bounds import Quotas
from psa_core.ops.levels.naive import levels_from_importance_naive
from psa_core.ops.levels.rules import COMPOSITIONS, levels_from_importance
from psa_core.ops.packed.naive import quantised_queries
from psa_core.ops.pyramid.rows import build_pyramid

from ..support.tensors import DEVICE, Shape, random_levels, relative_error
from .test_levels_from_importance import SINKS, random_map, seeds, selections, tied_importance
from .test_quantised import BOUND as QUANTISED_BOUND

pytestmark = pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")

DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float16
BOUND = {torch.bfloat16: 1e-2, torch.float16: 2e-3}
# With heads of keys: as many queries as keys and fewer, blocks that begin in a key block and at one, one query.
CASES = [
    (Shape(1, 7, 257, 257, 128, 128, 64), 1),
    (Shape(2, 2, 130, 301, 64, 64, 128), 1),
    (Shape(1, 2, 200, 455, 128, 128, 32), 2),
    (Shape(1, 2, 65, 129, 64, 64, 32), 1),
    (Shape(1, 2, 1, 70, 64, 128, 64), 1),
]
each_case = pytest.mark.parametrize(("shape", "kv_heads"), CASES)
QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def grouped(shape: Shape, kv_heads: int) -> QKV:
    """Queries, keys and values of fewer heads, heads inside tokens."""
    sizes = ((shape.q_tokens, shape.heads), (shape.k_tokens, kv_heads), (shape.k_tokens, kv_heads))
    q, k, v = (torch.randn(shape.batch, n, heads, shape.d, device=DEVICE).transpose(1, 2) for n, heads in sizes)
    return (2 * q).to(DTYPE), k.to(DTYPE), (v + 0.5).to(DTYPE)


def mask_of(shape: Shape) -> Causal:
    return Causal(shape.q_tokens, shape.k_tokens, shape.block_m, shape.block_n)


def importance_by_definition(q: torch.Tensor, k: torch.Tensor, causal: Causal | None, name: str, shape: Shape) -> Any:
    sizes = shape.block_m, shape.block_n
    if name == "mean":
        return mean_naive(q, k, *sizes, causal=causal)
    if name == "sub_block_mass":
        return sub_block_mass_naive(q, k, *sizes, causal=causal)
    sample = sample_positions(shape.q_tokens, q.device), sample_positions(shape.k_tokens, k.device)
    naive = sampled_sum_naive if name == "sampled_sum" else sampled_max_naive
    return naive(q, k, *sample, *sizes, causal)


class TestImportance:
    @each_case
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_equals_its_definition(self, estimator: str, shape: Shape, kv_heads: int) -> None:
        q, k, _ = grouped(shape, kv_heads)
        causal = mask_of(shape)
        found = ESTIMATORS[estimator](q, k, shape.block_m, shape.block_n, "triton", causal=causal)
        expected = importance_by_definition(q, k, causal, estimator, shape)
        # Kernels round means of runs to the precision of the tokens.
        assert relative_error(found, expected) < (1e-2 if estimator == "sub_block_mass" else 1e-4)

    @pytest.mark.parametrize("estimator", ["sampled_max", "sub_block_mass"])
    def test_of_heads_that_share_keys(self, estimator: str) -> None:
        shape, kv_heads = CASES[1]
        q, k, _ = grouped(shape, kv_heads)
        found = ESTIMATORS[estimator](q, k, shape.block_m, shape.block_n, "triton")
        assert relative_error(found, importance_by_definition(q, k, None, estimator, shape)) < 1e-2

    def test_by_head_and_of_some_blocks_as_alone(self) -> None:
        shape, kv_heads = Shape(1, 4, 300, 455, 64, 64, 32), 2
        q, k, _ = grouped(shape, kv_heads)
        sizes, causal, blocks = (shape.block_m, shape.block_n), mask_of(shape), (1, 3, 4)
        numbers = torch.arange(4, dtype=torch.int32, device=DEVICE)[None] % len(ESTIMATORS)
        found = importance_by_head(q, k, *sizes, tuple(ESTIMATORS), numbers, "triton", None, blocks, causal)
        for number, estimate in enumerate(ESTIMATORS.values()):
            every = estimate(q, k, *sizes, "triton", causal=causal)
            assert relative_error(found[numbers == number], every[:, :, list(blocks)][numbers == number]) < 1e-6


class TestLevels:
    @hypothesis.settings(max_examples=20)
    @hypothesis.given(selections(), st.integers(1, 200), st.integers(0, 300), st.data())
    def test_every_rule_together(self, config: PSAConfig, queries: int, more: int, data: st.DataObject) -> None:
        torch.manual_seed(data.draw(seeds))
        causal = Causal(queries, queries + more, config.block_m, config.block_n)
        k_blocks, blocks = -(-causal.k_tokens // config.block_n), None
        importance = tied_importance(2, 2, causal.q_blocks, k_blocks)
        # As estimators do, it says nothing of what is behind.
        importance *= causal_levels(torch.ones_like(importance), causal)
        cap = static_levels = quotas = None
        if data.draw(st.booleans(), "cap"):
            cap = torch.tensor([1, 2, 4, 8], dtype=torch.uint8)[torch.randint(4, (2, 2, 1, k_blocks))].to(DEVICE)
        if data.draw(st.booleans(), "static map"):
            static_levels = random_map(1, 2, causal.q_blocks, k_blocks)
        if data.draw(st.booleans(), "quotas"):
            seen = torch.tensor(visible_blocks(causal, blocks))[:, None]
            bounds = (torch.rand(2, 2, 1, 2).sort(-1).values * seen).ceil().int()
            quotas = Quotas((1, 4, 0), bounds.to(DEVICE))
        rules = data.draw(st.sampled_from(COMPOSITIONS)), data.draw(st.sampled_from(SINKS))
        arguments = importance, config, cap, static_levels, *rules
        levels = levels_from_importance(*arguments, "triton", quotas, causal=causal)
        assert torch.equal(levels.cpu(), levels_from_importance_naive(*arguments, quotas, causal).cpu())

    @pytest.mark.parametrize("mode", ["topk", "thresholdbound"])
    def test_of_some_query_blocks(self, mode: str) -> None:
        config, causal, blocks = PSAConfig(mask_mode=mode, block_m=64, block_n=32), Causal(300, 777, 64, 32), (0, 2, 4)
        importance = tied_importance(1, 2, causal.q_blocks, 25)
        every = levels_from_importance(importance, config, backend="triton", causal=causal)
        some = importance[:, :, list(blocks)]
        found = levels_from_importance(some, config, backend="triton", blocks=blocks, causal=causal)
        assert torch.equal(found, every[:, :, list(blocks)])


class TestAttention:
    @pytest.mark.parametrize(("shape", "kv_heads", "causal"), [*((*case, True) for case in CASES), (*CASES[1], False)])
    def test_equals_its_definition(self, shape: Shape, kv_heads: int, causal: bool) -> None:
        q, k, v = grouped(shape, kv_heads)
        levels, hidden = random_levels(shape, DEVICE), None
        if causal:
            levels, hidden = causal_levels(levels, mask_of(shape)), hidden_keys(mask_of(shape), DEVICE)
        sizes = shape.block_m, shape.block_n
        out, _ = attend(q, k, v, levels, *sizes, shape.block_n, "triton", hidden=hidden)
        assert relative_error(out, pyramid_attention_naive(q, k, v, levels, *sizes, causal=causal)) < BOUND[DTYPE]

    def test_some_queries_of_some_blocks_as_of_all(self) -> None:
        """As errors are measured: 32 queries of each of some blocks, in tiles of 64 that zeros fill."""
        shape = Shape(1, 2, 700, 900, 64, 128, 64)
        q, k, v = grouped(shape, 1)
        causal, blocks = mask_of(shape), (0, 2, 4)
        levels, hidden = causal_levels(random_levels(shape, DEVICE), causal), hidden_keys(causal, DEVICE)
        at = block_positions(blocks, 128, 700, q.device, 4)
        rows = torch.nn.functional.pad(q[:, :, at].unflatten(2, (3, 32)), (0, 0, 0, 32)).flatten(2, 3)
        of_rows = torch.nn.functional.pad(hidden[at].unflatten(0, (3, 32)), (0, 32)).flatten()
        some, _ = attend(rows, k, v, levels[:, :, list(blocks)], 64, 64, 64, "triton", hidden=of_rows)
        every, _ = attend(q, k, v, levels, 128, 64, 64, "triton", hidden=hidden)
        assert relative_error(some.unflatten(2, (3, 64))[:, :, :, :32].flatten(2, 3), every[:, :, at]) < BOUND[DTYPE]

    def test_the_future_changes_no_bit_of_the_past(self) -> None:
        shape = Shape(1, 2, 300, 400, 64, 64, 128)
        q, k, v = grouped(shape, 1)
        causal = mask_of(shape)
        levels, hidden = causal_levels(random_levels(shape, DEVICE), causal), hidden_keys(causal, DEVICE)
        before, _ = attend(q, k, v, levels, 64, 128, 128, "triton", hidden=hidden)
        for x, start in ((q, 200), (k, 300), (v, 300)):
            x[:, :, start:] = 5 * torch.randn_like(x[:, :, start:])
        after, _ = attend(q, k, v, levels, 64, 128, 128, "triton", hidden=hidden)
        assert torch.equal(before[:, :, :200], after[:, :, :200])
        assert not torch.equal(before[:, :, 200:], after[:, :, 200:])

    @pytest.mark.parametrize("precision", ["int8", *(["int8+fp8"] if DEVICE.type == "cuda" else [])])
    @pytest.mark.parametrize(("shape", "kv_heads", "exact"), [*((*case, None) for case in CASES), (*CASES[1], True)])
    def test_quantised_equals_its_definition(
        self, shape: Shape, kv_heads: int, precision: str, exact: bool | None
    ) -> None:
        from psa_core.ops.attention.quantised import ExactHeads, pack_for, quantised_attention_triton

        q, k, v = grouped(shape, kv_heads)
        sizes, causal = (shape.block_m, shape.block_n), mask_of(shape)
        levels, hidden = causal_levels(random_levels(shape, DEVICE), causal), hidden_keys(causal, DEVICE)
        block_list = build_block_list(levels, shape.block_n, shape.block_n, shape.k_tokens, "triton")
        pyramid = build_pyramid(k, v, shape.block_n, "triton")
        packed = pack_for(k, v, precision, *sizes, shape.block_n)
        heads = torch.ones(shape.batch, shape.heads, dtype=torch.uint8, device=DEVICE)
        which = None if exact is None else ExactHeads(heads, pyramid.k)
        out = quantised_attention_triton(q, k, v, block_list, packed, *sizes, exact=which, hidden=hidden)
        if exact is None:
            q, (k, v), pyramid = quantised_queries(q), packed.dequantised(shape.k_tokens), packed.dequantised_rows()
        expected = pyramid_attention_naive(q, k, v, levels, *sizes, pyramid, causal=True)
        assert relative_error(out, expected) < (BOUND[DTYPE] if exact else QUANTISED_BOUND[precision])
