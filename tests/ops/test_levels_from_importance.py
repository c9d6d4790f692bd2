"""The whole way from importance to the level map that runs, on both backends."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core import PSAConfig
from psa_core.ops.backends import triton_installed
from psa_core.ops.levels.naive import levels_from_importance_naive
from psa_core.ops.levels.rules import COMPOSITIONS, levels_from_importance
from psa_core.settings.sinks import Sink, text_in_front

from ..support.strategies import ratio_tilings
from ..support.tensors import DEVICE

BACKENDS = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")),
]
MODES = ["thresholdbound", "topk"]
# Sums of so many parts are exact in float32, in any order.
PARTS = 4096
# Text in front, and ranges around a video.
SINKS = ((), text_in_front(1), text_in_front(65), (Sink(0, 70, False), Sink(90, 91), Sink(150, 700, False)))

seeds = st.integers(0, 1 << 32)


def tied_importance(*shape: int) -> torch.Tensor:
    """Rows of whole PARTS that sum to 1, from flat to sharp: many ties, zeros, and exact sums."""
    weights = torch.rand(shape).pow(torch.randint(1, 40, (*shape[:-1], 1))).flatten(0, -2)
    drawn = torch.multinomial(weights + 1e-30, PARTS, replacement=True)
    counts = torch.zeros(len(weights), shape[-1]).scatter_add_(1, drawn, torch.ones(drawn.shape))
    return (counts / PARTS).view(shape).to(DEVICE)


def random_importance(*shape: int) -> torch.Tensor:
    """Rows that sum to 1, from flat to sharp."""
    sharpness = torch.rand(*shape[:-1], 1) * 8
    return (torch.randn(shape) * sharpness).softmax(-1).to(DEVICE)


def random_map(*shape: int) -> torch.Tensor:
    """Levels of which about half are 0."""
    choices = torch.tensor([0, 0, 0, 1, 2, 8], dtype=torch.uint8)
    return choices[torch.randint(len(choices), shape)].to(DEVICE)


def settings(**changes: Any) -> PSAConfig:
    return PSAConfig(block_n=32, **changes)


@st.composite
def selections(draw: st.DrawFn) -> PSAConfig:
    """Settings that decide levels; bounds in hundredths."""
    tiling = draw(ratio_tilings(32))
    rounded = {level: (round(lo, 2), round(hi, 2)) for level, (lo, hi) in tiling.items()}
    return settings(
        mask_ratios=rounded,
        mask_mode=draw(st.sampled_from(MODES)),
        min_full_ratio=draw(st.sampled_from([0.0, 0.06, 0.5, 1.0])),
        block_m=draw(st.sampled_from([64, 128])),
    )


@pytest.mark.parametrize("backend", BACKENDS)
class TestAgainstTheRules:
    @hypothesis.settings(max_examples=20)
    @hypothesis.given(selections(), st.integers(1, 24), st.data())
    def test_every_rule_together(self, backend: str, config: PSAConfig, k_blocks: int, data: st.DataObject) -> None:
        torch.manual_seed(data.draw(seeds))
        batch, heads = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]))
        importance = tied_importance(batch, heads, 2, k_blocks)
        cap = static_levels = None
        if data.draw(st.booleans(), "cap"):
            cap = torch.tensor([1, 2, 4, 8], dtype=torch.uint8)[torch.randint(4, (batch, heads, 1, k_blocks))]
        if data.draw(st.booleans(), "static map"):
            shape = data.draw(st.sampled_from([1, batch])), data.draw(st.sampled_from([1, heads]))
            static_levels = random_map(*shape, 2, k_blocks)
        cap = cap if cap is None else cap.to(DEVICE)
        sinks = data.draw(st.sampled_from(SINKS))
        rule = data.draw(st.sampled_from(COMPOSITIONS))
        arguments = importance, config, cap, static_levels, rule, sinks
        levels = levels_from_importance(*arguments, backend)
        assert levels.dtype == torch.uint8
        assert levels.is_contiguous()
        assert torch.equal(levels.cpu(), levels_from_importance_naive(*arguments).cpu())

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("k_blocks", [1, 2, 3, 507, 600, 4200])
    def test_lengths(self, mode: str, k_blocks: int, backend: str) -> None:
        importance = tied_importance(1, 2, 2, k_blocks)
        config = PSAConfig(mask_mode=mode)
        levels = levels_from_importance(importance, config, backend=backend)
        assert torch.equal(levels.cpu(), levels_from_importance_naive(importance, config).cpu())

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        "mask_ratios",
        [
            {1: (0, 1)},
            {0: (0, 1)},
            {1: (0, 0.15), 0: (0.15, 1)},
            {1: (0, 0), 4: (0, 1)},
            {1: (0, 0.5), 2: (0.5, 0.5), 8: (0.5, 1), 0: (1, 1)},
            {1: (0, 1 / 64), 2: (1 / 64, 63 / 64), 4: (63 / 64, 1)},
            {1: (0, 0.1), 2: (0.1, 0.2), 4: (0.2, 0.3), 8: (0.3, 0.4), 16: (0.4, 0.5), 32: (0.5, 0.9), 0: (0.9, 1)},
        ],
    )
    @pytest.mark.parametrize("min_full_ratio", [0.0, 0.06, 1.0])
    def test_ratios(self, mask_ratios: dict, mode: str, min_full_ratio: float, backend: str) -> None:
        importance = tied_importance(1, 1, 3, 100)
        config = settings(mask_ratios=mask_ratios, mask_mode=mode, min_full_ratio=min_full_ratio)
        levels = levels_from_importance(importance, config, backend=backend)
        assert torch.equal(levels.cpu(), levels_from_importance_naive(importance, config).cpu())

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("row", [[1.0] + [0.0] * 63, [0.0] * 63 + [1.0], [1 / 64] * 64, [0.0] * 64])
    def test_spikes_and_plains(self, row: list[float], mode: str, backend: str) -> None:
        importance = torch.tensor(row, device=DEVICE).view(1, 1, 1, 64)
        config = PSAConfig(mask_mode=mode)
        levels = levels_from_importance(importance, config, backend=backend)
        assert torch.equal(levels.cpu(), levels_from_importance_naive(importance, config).cpu())

    @pytest.mark.parametrize("min_full_ratio", [0.0, 0.2])
    def test_masses_up_to_rounding(self, min_full_ratio: float, backend: str) -> None:
        importance = random_importance(2, 2, 3, 139)
        config = PSAConfig(min_full_ratio=min_full_ratio)
        levels = levels_from_importance(importance, config, backend=backend)
        differs = levels.cpu() != levels_from_importance_naive(importance, config).cpu()
        ranked = importance.double().sort(dim=-1, descending=True, stable=True)
        before = torch.empty_like(ranked.values).scatter_(-1, ranked.indices, ranked.values.cumsum(-1) - ranked.values)
        bounds = torch.tensor([hi for _, hi in config.mask_ratios.values()][:-1], device=DEVICE)
        assert ((before[..., None] - bounds).abs().amin(-1).cpu()[differs] < 1e-5).all()

    def test_quotas_are_exact(self, backend: str) -> None:
        importance, config = random_importance(2, 2, 3, 139), PSAConfig(mask_mode="topk")
        levels = levels_from_importance(importance, config, backend=backend)
        assert torch.equal(levels.cpu(), levels_from_importance_naive(importance, config).cpu())


@pytest.mark.parametrize("backend", BACKENDS)
class TestEmptyRows:
    NOTHING = settings(mask_ratios={0: (0, 1)}, min_full_ratio=0.0)

    def test_keep_their_most_important_block(self, backend: str) -> None:
        importance = random_importance(2, 2, 3, 50)
        levels = levels_from_importance(importance, self.NOTHING, backend=backend)
        assert torch.equal(levels, torch.nn.functional.one_hot(importance.argmax(-1), 50).to(torch.uint8))

    def test_keep_one_that_the_static_map_keeps(self, backend: str) -> None:
        importance = torch.tensor([[[[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]]], device=DEVICE)
        static_levels = torch.tensor([[[[0, 8, 8], [0, 0, 0]]]], dtype=torch.uint8, device=DEVICE)
        levels = levels_from_importance(importance, self.NOTHING, None, static_levels, backend=backend)
        assert levels.tolist() == [[[[0, 1, 0], [1, 0, 0]]]]

    def test_keep_any_block_where_the_finer_wins(self, backend: str) -> None:
        importance = torch.tensor([[[[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]]], device=DEVICE)
        static_levels = torch.tensor([[[[0, 8, 0], [0, 0, 0]]]], dtype=torch.uint8, device=DEVICE)
        levels = levels_from_importance(importance, self.NOTHING, None, static_levels, "finer wins", backend=backend)
        assert levels.tolist() == [[[[0, 8, 0], [1, 0, 0]]]]

    def test_of_text_need_none(self, backend: str) -> None:
        importance = torch.tensor([0.2, 0.3, 0.5], device=DEVICE).expand(1, 1, 3, 3)
        levels = levels_from_importance(importance, self.NOTHING, sinks=text_in_front(1), backend=backend)
        assert levels.tolist() == [[[[1, 1, 1], [1, 0, 0], [1, 0, 0]]]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("view", ["transposed", "every second", "expanded"])
def test_any_strides(view: str, backend: str) -> None:
    make = {
        "transposed": lambda x: x.mT.contiguous().mT,
        "every second": lambda x: torch.stack([x, x], -1)[..., 0],
        "expanded": lambda x: x[:1, :1].expand(x.shape),
    }[view]
    importance, static_levels = make(tied_importance(2, 2, 3, 40)), make(random_map(2, 2, 3, 40))
    config = PSAConfig()
    levels = levels_from_importance(importance, config, None, static_levels, backend=backend)
    expected = levels_from_importance_naive(importance.contiguous(), config, None, static_levels.contiguous())
    assert torch.equal(levels.cpu(), expected.cpu())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_rows_with_nan_keep_a_block_and_harm_no_other(mode: str, backend: str) -> None:
    importance = tied_importance(1, 1, 4, 70)
    config = PSAConfig(mask_mode=mode)
    expected = levels_from_importance(importance, config, backend=backend)
    importance[:, :, 1] = float("nan")
    importance[:, :, 3, ::7] = float("nan")
    levels = levels_from_importance(importance, config, backend=backend)
    assert torch.equal(levels[:, :, ::2], expected[:, :, ::2])
    assert levels.any(-1).all()
