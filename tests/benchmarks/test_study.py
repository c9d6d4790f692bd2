"""The study of settings at equal density: what it estimates, compares and tells."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.study.estimators import TRUE_MASS, effective_keys, importance
from benchmarks.study.measure import Heads, measure
from benchmarks.study.questions import DENSITIES, QUESTIONS, Setting
from psa_core.ops.levels.rules import density, select_levels

pytest.importorskip("diffusers")

from benchmarks.study.capture import GRID, Call
from benchmarks.study.tables import _table

TOKENS = math.prod(GRID)
SETTINGS = list(dict.fromkeys(setting for columns in QUESTIONS.values() for setting in columns.values()))


def test_true_mass_is_the_softmax_weight_between_blocks() -> None:
    q, k = torch.randn(2, 1, 2, 200, 16)
    weights = (q @ k.mT / 4).softmax(-1)
    found = importance(TRUE_MASS, q, k, 128, 64)
    assert found.shape == (1, 2, 2, 4)
    torch.testing.assert_close(found[..., 1, 3], weights[..., 128:, 192:].sum((-1, -2)) / 72)
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 2, 2))


def test_sampled_sum_of_tokens_that_are_alike_is_the_true_mass() -> None:
    q, k = (x.repeat_interleave(4, 2) for x in torch.randn(2, 1, 2, 96, 16))
    found = importance("sampled_sum", q, k, 128, 32)
    torch.testing.assert_close(found, importance(TRUE_MASS, q, k, 128, 32))


def test_effective_keys_count_keys() -> None:
    q = torch.zeros(1, 1, 64, 16)
    assert float(effective_keys(q, torch.randn(1, 1, 64, 16))) == pytest.approx(64)


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if not setting.bounds])
@pytest.mark.parametrize("wanted", DENSITIES)
def test_quotas_come_within_two_percent_of_a_density(setting: Setting, wanted: float) -> None:
    blocks = math.ceil(TOKENS / setting.block_n)
    levels = select_levels(torch.rand(1, 1, 3, blocks), setting.config(wanted, blocks))
    assert float(density(levels)) == pytest.approx(wanted, rel=0.02)


def test_more_density_is_less_error_and_all_of_it_none() -> None:
    q, k, v = torch.randn(3, 1, 1, TOKENS, 16)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    low, high, full = measure([Call(q, k, v, dense, 0, 0)], Setting(pooled=False), (0.1, 0.5, 1.0))
    assert float(low.error) > float(high.error) > float(full.error)
    assert float(full.error) < 0.02
    assert low.density == pytest.approx(0.1, rel=0.02)


def test_tables_say_densities_that_are_off() -> None:
    heads = [Heads(torch.tensor([0.1, 0.3]), reached) for reached in (0.1, 0.2, 0.29)]
    line = _table("question", {"setting": heads}, torch.tensor([True, False])).splitlines()[-1]
    cell = "0.200 (0.100, 0.300)"
    assert line == f"| setting | {cell} | {cell} | {cell}, density 0.290 |"
