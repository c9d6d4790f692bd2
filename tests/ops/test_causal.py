"""The causal mask in blocks, importance under it and levels from that, against definitions and oracles."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core.ops.causal import Causal, hidden_keys, own_blocks, visible_blocks
from psa_core.ops.importance.by_head import importance_by_head
from psa_core.ops.importance.estimators import ESTIMATORS
from psa_core.ops.importance.naive import mean_naive, sampled_max_naive, sampled_sum_naive, sub_block_mass_naive
from psa_core.ops.importance.sampling import sample_positions
from psa_core.ops.levels.bounds import Quotas, bounds_at, quota_bounds, quota_ends, row_bounds
from psa_core.ops.levels.naive import levels_from_importance_naive
from psa_core.ops.levels.rules import COMPOSITIONS, levels_from_importance

from ..support.strategies import ratio_tilings
from ..support.tensors import DEVICE
from .test_levels_from_importance import SINKS, random_map, seeds, selections, tied_importance

# Whole blocks and ragged ones, a prompt behind a cache, and a single query.
MASKS = [Causal(300, 300, 64, 32), Causal(130, 301, 64, 128), Causal(1, 40, 128, 32), Causal(200, 455, 128, 64)]
each_mask = pytest.mark.parametrize("causal", MASKS, ids=str)


@st.composite
def masks(draw: st.DrawFn) -> Causal:
    """Any causal mask over a few blocks of 64 queries and 32 keys."""
    k_tokens = draw(st.integers(1, 400))
    return Causal(draw(st.integers(1, k_tokens)), k_tokens, 64, 32)


@each_mask
def test_blocks_hold_what_queries_see(causal: Causal) -> None:
    first, behind = (x.flatten().tolist() for x in own_blocks(causal, None, DEVICE))
    hidden = hidden_keys(causal, DEVICE).tolist()
    pairs = 0
    for block in range(causal.q_blocks):
        queries = range(block * causal.block_m, min((block + 1) * causal.block_m, causal.q_tokens))
        places = [query + causal.k_tokens - causal.q_tokens for query in queries]
        assert (first[block], behind[block] - 1) == (places[0] // causal.block_n, places[-1] // causal.block_n)
        stop = min(behind[block] * causal.block_n, causal.k_tokens)
        assert [hidden[query] for query in queries] == [stop - 1 - place for place in places]
        pairs += behind[block]
    assert visible_blocks(causal) == tuple(behind)
    assert visible_blocks(causal, (0,)) == (behind[0],)
    assert causal.visible_share == pairs / (causal.q_blocks * -(-causal.k_tokens // causal.block_n))


def sampled(naive: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def importance(q: torch.Tensor, k: torch.Tensor, block_m: int, block_n: int, causal: Causal) -> torch.Tensor:
        samples = sample_positions(q.shape[2], q.device), sample_positions(k.shape[2], k.device)
        return naive(q, k, *samples, block_m, block_n, causal)

    return importance


ORACLES: dict[str, Callable[..., torch.Tensor]] = {
    "sampled_max": sampled(sampled_max_naive),
    "sampled_sum": sampled(sampled_sum_naive),
    "mean": mean_naive,
    "sub_block_mass": sub_block_mass_naive,
}


def queries_and_keys(causal: Causal) -> tuple[torch.Tensor, torch.Tensor]:
    """Of six heads, three of which share keys each."""
    return (
        2 * torch.randn(2, 6, causal.q_tokens, 64, device=DEVICE),
        torch.randn(2, 2, causal.k_tokens, 64, device=DEVICE),
    )


@each_mask
@pytest.mark.parametrize("name", ORACLES)
class TestImportance:
    def test_is_what_its_definition_says(self, name: str, causal: Causal) -> None:
        q, k = queries_and_keys(causal)
        sizes = causal.block_m, causal.block_n
        found = ESTIMATORS[name](q, k, *sizes, causal=causal)
        torch.testing.assert_close(found.double(), ORACLES[name](q, k, *sizes, causal=causal), atol=1e-6, rtol=1e-4)
        last = (causal.q_blocks - 1,)
        alone = ESTIMATORS[name](q, k, *sizes, blocks=last, causal=causal)
        torch.testing.assert_close(alone, found[:, :, -1:], atol=1e-6, rtol=1e-4)

    def test_never_looks_ahead(self, name: str, causal: Causal) -> None:
        q, k = queries_and_keys(causal)
        sizes, block = (causal.block_m, causal.block_n), causal.q_blocks // 2
        of_head = torch.full(q.shape[:2], list(ESTIMATORS).index(name), dtype=torch.int32, device=DEVICE)
        before = importance_by_head(q, k, *sizes, tuple(ESTIMATORS), of_head, causal=causal)
        first = block * causal.block_m
        q[:, :, first:], k[:, :, first + causal.offset :] = 9.0, -7.0
        after = importance_by_head(q, k, *sizes, tuple(ESTIMATORS), of_head, causal=causal)
        assert torch.equal(before[:, :, :block], after[:, :, :block])


def importance_under(causal: Causal) -> torch.Tensor:
    """Rows of two heads that have importance where the mask leaves any."""
    rows = [tied_importance(1, 2, 1, stop) for stop in visible_blocks(causal)]
    blocks = -(-causal.k_tokens // causal.block_n)
    return torch.cat([torch.nn.functional.pad(row, (0, blocks - row.shape[-1])) for row in rows], 2)


class TestLevels:
    @hypothesis.settings(max_examples=30)
    @hypothesis.given(masks(), selections(), seeds, st.data())
    def test_every_rule_together(self, causal: Causal, config, seed: int, data: st.DataObject) -> None:
        torch.manual_seed(seed)
        config = config.replace(block_m=64)
        importance = importance_under(causal)
        cap = static = quotas = None
        if data.draw(st.booleans()):
            cap = torch.tensor([1, 2, 4, 8], dtype=torch.uint8)[torch.randint(4, (1, 2, 1, importance.shape[-1]))]
            cap, static = cap.to(DEVICE), random_map(1, 1, *importance.shape[2:])
        levels = (1, 2, 4, 8, 16, 32, 0)
        if data.draw(st.booleans()):
            ends = [quota_ends(data.draw(ratio_tilings(32)), levels) for _ in range(2)]
            quotas = Quotas(levels, bounds_at(ends, visible_blocks(causal))[None].to(DEVICE))
        rules = cap, static, data.draw(st.sampled_from(COMPOSITIONS)), data.draw(st.sampled_from(SINKS))
        found = levels_from_importance(importance, config, *rules, quotas=quotas, causal=causal)
        assert torch.equal(found, levels_from_importance_naive(importance, config, *rules, quotas, causal))
        own, behind = own_blocks(causal, None, DEVICE)
        j = torch.arange(found.shape[-1], device=DEVICE)
        assert (found == 1)[:, :, (j >= own) & (j < behind)].all()
        assert not found[:, :, j >= behind].any()

        some = tuple(range(0, causal.q_blocks, 2))
        rules = cap, None if static is None else static[:, :, ::2], *rules[2:]
        if quotas is not None:
            quotas = quotas._replace(bounds=quotas.bounds[:, :, ::2])
        of_some = levels_from_importance(
            importance[:, :, ::2], config, *rules, quotas=quotas, blocks=some, causal=causal
        )
        assert torch.equal(of_some, found[:, :, ::2])

    @hypothesis.settings(max_examples=30)
    @hypothesis.given(masks(), selections())
    def test_shares_are_those_of_what_a_row_sees(self, causal: Causal, config) -> None:
        found = row_bounds(config, -(-causal.k_tokens // 32), DEVICE, causal)
        alone = [row_bounds(config, stop, DEVICE) for stop in visible_blocks(causal)]
        assert found.full_quota.tolist() == [each.full_quota.item() for each in alone]
        bounds = found.bounds.expand(len(alone), -1)
        assert torch.equal(bounds, torch.cat([each.bounds for each in alone]))
        if config.mask_mode == "topk":
            of_rows = [quota_bounds(config.mask_ratios, found.levels, stop) for stop in visible_blocks(causal)]
            assert bounds.tolist() == [list(row) for row in of_rows]
