"""Level maps: selection, text, repair and density."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core import PSAConfig
from psa_core.ops.levels.naive import select_levels_naive
from psa_core.ops.levels.rules import density, full_resolution_sinks, repair_empty_rows, select_levels
from psa_core.settings.sinks import Sink, text_in_front

LEVELS = (1, 2, 4, 8, 16, 32)


@st.composite
def ratios(draw: st.DrawFn) -> dict[int, tuple[float, float]]:
    """Intervals that tile [0, 1] in hundredths, as people write them; some empty, some levels left out."""
    levels = [*sorted(draw(st.sets(st.sampled_from(LEVELS)))), *draw(st.sampled_from([[], [0]]))] or [1]
    cuts = [0, *sorted(draw(st.integers(0, 100)) for _ in levels[1:]), 100]
    return {level: (cuts[i] / 100, cuts[i + 1] / 100) for i, level in enumerate(levels)}


@st.composite
def importances(draw: st.DrawFn) -> torch.Tensor:
    """Rows that sum to 1 in 64ths, so that cumulative sums are exact; ties, zeros and single spikes among them."""
    k_blocks = draw(st.integers(1, 24))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        cuts = sorted(draw(st.integers(0, 64)) for _ in range(k_blocks - 1))
        rows.append([(b - a) / 64 for a, b in zip([0, *cuts], [*cuts, 64], strict=True)])
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def random_importance(*shape: int, seed: int | None = None) -> torch.Tensor:
    """Importances without ties; ``seed`` for tests that Hypothesis repeats."""
    if seed is not None:
        torch.manual_seed(seed)
    x = torch.rand(*shape, dtype=torch.float64) ** 4
    return x / x.sum(-1, keepdim=True)


seeds = st.integers(0, 1 << 32)


def settings(**changes: Any) -> PSAConfig:
    return PSAConfig(block_n=32, **changes)


class TestSelection:
    @hypothesis.given(
        importances(), ratios(), st.sampled_from(["thresholdbound", "topk"]), st.sampled_from([0.0, 0.06, 0.5, 1.0])
    )
    def test_equals_the_rules_row_by_row(
        self, importance: torch.Tensor, mask_ratios: dict, mode: str, min_full_ratio: float
    ) -> None:
        config = settings(mask_ratios=mask_ratios, mask_mode=mode, min_full_ratio=min_full_ratio)
        levels = select_levels(importance, config)
        assert levels.dtype == torch.uint8
        assert levels.is_contiguous()
        assert torch.equal(levels, select_levels_naive(importance, mask_ratios, mode, min_full_ratio))

    @pytest.mark.parametrize("mode", ["thresholdbound", "topk"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_equals_the_rules_on_importances_of_all_sizes(self, mode: str, dtype: torch.dtype) -> None:
        # Sums of so many parts are exact in float32.
        importance = random_importance(2, 3, 20, 139).mul(1 << 20).round().div(1 << 20).to(dtype)
        config = PSAConfig(mask_mode=mode)
        expected = select_levels_naive(importance, config.mask_ratios, mode, config.min_full_ratio)
        assert torch.equal(select_levels(importance, config), expected)

    @hypothesis.given(ratios(), st.integers(1, 400), seeds)
    @hypothesis.example({1: (0, 0.07), 0: (0.07, 1)}, 100, 0)
    def test_topk_quotas_are_exact(self, mask_ratios: dict, k_blocks: int, seed: int) -> None:
        importance = random_importance(1, 2, 3, k_blocks, seed=seed)
        levels = select_levels(importance, settings(mask_ratios=mask_ratios, mask_mode="topk"))
        for level, (lo, hi) in mask_ratios.items():
            lo, hi = round(100 * lo), round(100 * hi)
            quota = -(-hi * k_blocks // 100) + (lo * k_blocks // -100)
            assert ((levels == level).sum(-1) == quota).all()

    @hypothesis.given(ratios(), st.integers(1, 60), seeds)
    def test_thresholdbound_levels_hold_their_share_of_mass(self, mask_ratios: dict, k_blocks: int, seed: int) -> None:
        importance = random_importance(1, 1, 2, k_blocks, seed=seed)
        levels = select_levels(importance, settings(mask_ratios=mask_ratios, min_full_ratio=0.0))
        for row, chosen in zip(importance[0, 0].tolist(), levels[0, 0].tolist(), strict=True):
            for j, level in enumerate(chosen):
                before = math.fsum(x for x in row if x > row[j])
                lo, hi = mask_ratios[level]
                # Bounds are float32.
                assert lo - 1e-7 < before < hi + 1e-7

    @hypothesis.given(importances(), ratios(), st.sampled_from(["thresholdbound", "topk"]))
    def test_empty_intervals_and_missing_levels_are_never_used(
        self, importance: torch.Tensor, mask_ratios: dict, mode: str
    ) -> None:
        config = settings(mask_ratios=mask_ratios, mask_mode=mode, min_full_ratio=0.0)
        used = {level for level, (lo, hi) in mask_ratios.items() if lo < hi}
        assert set(select_levels(importance, config).unique().tolist()) <= used
        assert used <= set(config.levels)

    @hypothesis.given(importances(), ratios(), st.sampled_from(["thresholdbound", "topk"]))
    def test_more_important_is_never_coarser(self, importance: torch.Tensor, mask_ratios: dict, mode: str) -> None:
        config = settings(mask_ratios=mask_ratios, mask_mode=mode)
        order = importance.sort(dim=-1, descending=True, stable=True).indices
        ranked = select_levels(importance, config).gather(-1, order)
        coarseness = torch.where(ranked == 0, 255, ranked).int()
        assert (coarseness.diff() >= 0).all()

    @pytest.mark.parametrize(
        ("ratio", "k_blocks", "kept"), [(0.06, 100, 6), (0.06, 101, 7), (0.06, 1, 1), (0.07, 100, 7), (0.0, 100, 0)]
    )
    def test_least_share_at_full_resolution(self, ratio: float, k_blocks: int, kept: int) -> None:
        config = settings(mask_ratios={2: (0, 1)}, min_full_ratio=ratio)
        levels = select_levels(random_importance(1, 1, 5, k_blocks), config)
        assert ((levels == 1).sum(-1) == kept).all()

    def test_the_block_that_crosses_a_bound_takes_the_finer_level(self) -> None:
        importance = torch.tensor([[[[0.125, 0.5, 0.25, 0.125]]]])
        config = settings(mask_ratios={1: (0, 0.375), 2: (0.375, 0.75), 4: (0.75, 0.875), 0: (0.875, 1)})
        assert select_levels(importance, config).flatten().tolist() == [4, 1, 2, 0]

    def test_equal_importances_rank_in_block_order(self) -> None:
        config = settings(mask_ratios={1: (0, 0.5), 0: (0.5, 1)}, mask_mode="topk")
        levels = select_levels(torch.full((1, 1, 1, 50), 0.02), config)
        assert levels.flatten().tolist() == [1] * 25 + [0] * 25

    @pytest.mark.parametrize("mode", ["thresholdbound", "topk"])
    def test_spent_importance_does_not_skip_when_nothing_may_be_skipped(self, mode: str) -> None:
        spike = torch.tensor([[[[0.0, 1.0, 0.0, 0.0]]]])
        config = settings(mask_ratios={1: (0, 0.5), 2: (0.5, 1), 0: (1, 1)}, mask_mode=mode, min_full_ratio=0.0)
        levels = select_levels(spike, config)
        assert set(levels.flatten().tolist()) == {1, 2}


@pytest.mark.parametrize(("text", "rows", "columns"), [(0, 0, 0), (1, 1, 1), (64, 1, 2), (65, 2, 3), (226, 4, 8)])
def test_text_is_at_full_resolution(text: int, rows: int, columns: int) -> None:
    levels = full_resolution_sinks(torch.full((2, 2, 6, 12), 4, dtype=torch.uint8), text_in_front(text), 64, 32)
    expected = torch.full((6, 12), 4, dtype=torch.uint8)
    expected[:rows] = expected[:, :columns] = 1
    assert (levels == expected).all()


def test_sinks_anywhere_with_dense_rows_where_they_want_them() -> None:
    levels = torch.full((2, 1, 6, 12), 4, dtype=torch.uint8)
    levels = full_resolution_sinks(levels, (Sink(0, 1, False), Sink(100, 130, True), Sink(383, 384, False)), 64, 32)
    expected = torch.full((6, 12), 4, dtype=torch.uint8)
    expected[:, [0, 3, 4, 11]] = expected[1:3] = 1
    assert (levels == expected).all()


def test_of_some_query_blocks_those_that_a_sink_has_are_dense() -> None:
    levels = torch.full((1, 1, 3, 12), 4, dtype=torch.uint8)
    levels = full_resolution_sinks(levels, (Sink(64, 128),), 64, 32, blocks=(4, 1, 2))
    assert (levels[0, 0] == 1).all(1).tolist() == [False, True, False]


class TestRepair:
    def test_only_empty_rows_get_their_most_important_block(self) -> None:
        importance = random_importance(2, 3, 6, 9)
        levels = torch.randint(0, 2, (2, 3, 6, 9), dtype=torch.uint8) * 8
        levels[:, :, ::2] = 0
        levels[:, :, 1::2, 4] = 2
        repaired = repair_empty_rows(levels, importance)
        assert torch.equal(repaired[:, :, 1::2], levels[:, :, 1::2])
        best = torch.nn.functional.one_hot(importance.argmax(-1), 9)
        assert torch.equal(repaired[:, :, ::2], best[:, :, ::2].to(torch.uint8))

    def test_broadcast_map_is_repaired_head_by_head(self) -> None:
        importance = random_importance(2, 3, 4, 9)
        levels = torch.zeros(1, 1, 4, 9, dtype=torch.uint8)
        repaired = repair_empty_rows(levels, importance)
        assert torch.equal(repaired, torch.nn.functional.one_hot(importance.argmax(-1), 9).to(torch.uint8))
        assert not levels.any()


@hypothesis.given(st.lists(st.sampled_from([0, *LEVELS, 64, 128]), min_size=1, max_size=20))
def test_density_is_the_mean_cost(levels: list[int]) -> None:
    measured = density(torch.tensor(levels, dtype=torch.uint8))
    assert measured.ndim == 0
    assert measured.item() == pytest.approx(sum(1 / level for level in levels if level) / len(levels))
