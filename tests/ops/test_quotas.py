"""Level maps whose heads have quotas of their own, on both backends."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core import PSAConfig
from psa_core.ops.levels.bounds import Quotas, quota_bounds
from psa_core.ops.levels.naive import levels_from_importance_naive
from psa_core.ops.levels.rules import COMPOSITIONS, levels_from_importance
from psa_core.settings.mask_ratios import pyramid_order

from ..support.strategies import ratio_tilings
from ..support.tensors import DEVICE
from .test_levels_from_importance import BACKENDS, MODES, SINKS, random_importance, random_map, seeds, tied_importance

LEVELS = (1, 2, 8, 32, 0)
# Quotas stand in place of all that it says of levels.
CONFIG = PSAConfig(block_n=32, mask_ratios={4: (0, 1)}, min_full_ratio=0.5)

each_backend = pytest.mark.parametrize("backend", BACKENDS)


def random_quotas(batch: int, heads: int, k_blocks: int, levels: tuple[int, ...] = LEVELS) -> Quotas:
    """Any bounds, of which about a third are 0 or all blocks."""
    shape = batch, heads, 1, len(levels) - 1
    ends = torch.randint(k_blocks + 1, shape)
    ends = torch.where(torch.rand(shape) < 0.3, torch.randint(2, shape) * k_blocks, ends)
    return Quotas(levels, ends.sort(-1).values.int().to(DEVICE))


@st.composite
def calls(draw: st.DrawFn) -> tuple:
    """Arguments of ``levels_from_importance`` up to the sinks."""
    torch.manual_seed(draw(seeds))
    batch, heads, k_blocks = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 24))
    cap = static_levels = None
    if draw(st.booleans()):
        cap = torch.tensor([1, 2, 4, 8], dtype=torch.uint8)[torch.randint(4, (batch, heads, 1, k_blocks))].to(DEVICE)
    if draw(st.booleans()):
        static_levels = random_map(draw(st.sampled_from([1, batch])), draw(st.sampled_from([1, heads])), 2, k_blocks)
    importance, config = (
        tied_importance(batch, heads, 2, k_blocks),
        CONFIG.replace(mask_mode=draw(st.sampled_from(MODES))),
    )
    return (
        importance,
        config,
        cap,
        static_levels,
        draw(st.sampled_from(COMPOSITIONS)),
        draw(st.sampled_from(SINKS)),
    )


@each_backend
class TestAgainstTheRules:
    @hypothesis.settings(max_examples=20)
    @hypothesis.given(calls(), st.sets(st.sampled_from((1, 2, 4, 8, 16, 32, 0)), min_size=1))
    def test_every_rule_together(self, backend: str, call: tuple, used: set[int]) -> None:
        batch, heads, _, k_blocks = call[0].shape
        quotas = random_quotas(batch, heads, k_blocks, tuple(sorted(used, key=pyramid_order)))
        levels = levels_from_importance(*call, backend, quotas)
        assert levels.dtype == torch.uint8
        assert levels.is_contiguous()
        assert torch.equal(levels.cpu(), levels_from_importance_naive(*call, quotas).cpu())

    @pytest.mark.parametrize("k_blocks", [1, 2, 3, 507, 600, 4200])
    @pytest.mark.parametrize("make", [tied_importance, random_importance])
    def test_lengths(self, make, k_blocks: int, backend: str) -> None:
        importance, quotas = make(2, 2, 2, k_blocks), random_quotas(2, 2, k_blocks)
        levels = levels_from_importance(importance, CONFIG, backend=backend, quotas=quotas)
        assert torch.equal(levels.cpu(), levels_from_importance_naive(importance, CONFIG, quotas=quotas).cpu())


@each_backend
@hypothesis.settings(max_examples=10)
@hypothesis.given(calls(), st.data())
def test_a_head_gets_what_it_gets_alone(backend: str, call: tuple, data: st.DataObject) -> None:
    importance, config, cap, static_levels, *rules = call
    batch, heads, _, k_blocks = importance.shape
    ratios = [[data.draw(ratio_tilings(32)) for _ in range(heads)] for _ in range(batch)]
    levels = (1, 2, 4, 8, 16, 32, 0)
    bounds = [[quota_bounds(head, levels, k_blocks) for head in entry] for entry in ratios]
    quotas = Quotas(levels, torch.tensor(bounds, dtype=torch.int32, device=DEVICE)[:, :, None])
    together = levels_from_importance(*call, backend, quotas)
    for b, h in ((b, h) for b in range(batch) for h in range(heads)):
        own = config.replace(mask_mode="topk", mask_ratios=ratios[b][h])
        mask = None if static_levels is None else static_levels.expand(batch, heads, -1, -1)[b : b + 1, h : h + 1]
        caps = None if cap is None else cap[b : b + 1, h : h + 1]
        alone = levels_from_importance(importance[b : b + 1, h : h + 1], own, caps, mask, *rules, backend)
        assert torch.equal(together[b, h], alone[0, 0])


@each_backend
class TestBounds:
    def test_all_levels_but_one_may_be_empty(self, backend: str) -> None:
        importance = random_importance(1, 4, 3, 50)
        bounds = [[0, 0, 50], [0, 50, 50], [50, 50, 50], [0, 0, 0]]
        quotas = Quotas((1, 2, 8, 0), torch.tensor([bounds], dtype=torch.int32, device=DEVICE)[:, :, None])
        levels = levels_from_importance(importance, CONFIG, backend=backend, quotas=quotas)
        assert (levels[:, 0] == 8).all()
        assert (levels[:, 1] == 2).all()
        assert (levels[:, 2] == 1).all()
        # Of a row that keeps nothing, the most important block.
        best = torch.nn.functional.one_hot(importance[:, 3].argmax(-1), 50).to(torch.uint8)
        assert torch.equal(levels[:, 3], best)

    def test_equal_importances_rank_in_block_order(self, backend: str) -> None:
        importance = torch.full((1, 2, 1, 10), 0.1, device=DEVICE)
        quotas = Quotas((1, 4, 0), torch.tensor([[[[3, 5]], [[0, 1]]]], dtype=torch.int32, device=DEVICE))
        levels = levels_from_importance(importance, CONFIG, backend=backend, quotas=quotas)
        assert levels[0, :, 0].tolist() == [[1, 1, 1, 4, 4, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0]]

    def test_may_be_a_view(self, backend: str) -> None:
        importance, quotas = random_importance(2, 3, 2, 40), random_quotas(2, 3, 40)
        view = Quotas(quotas.levels, quotas.bounds.mT.contiguous().mT)
        shared = Quotas(quotas.levels, quotas.bounds[:1, :1].expand(2, 3, -1, -1))
        for given in (view, shared):
            levels = levels_from_importance(importance, CONFIG, backend=backend, quotas=given)
            expected = levels_from_importance_naive(importance, CONFIG, quotas=given)
            assert torch.equal(levels.cpu(), expected.cpu())


@hypothesis.given(ratio_tilings(32), st.integers(1, 400))
def test_a_level_that_ratios_leave_out_takes_no_blocks(ratios: dict, k_blocks: int) -> None:
    levels = (1, 2, 4, 8, 16, 32, 0)
    ends = [0, *quota_bounds(ratios, levels, k_blocks), k_blocks]
    for level, start, end in zip(levels, ends, ends[1:], strict=False):
        lo, hi = ratios.get(level, (0, 0))
        # Both ends are rounded up.
        assert abs(end - start - (hi - lo) * k_blocks) < 1 + 1e-9
        assert start == end or lo < hi
