"""Causal attention and heads that share keys, from tensors to the output."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from psa_core import (
    ConfigError,
    PSAAttention,
    PSAConfig,
    RadialMask,
    attention_from_levels,
    calibrate,
    pyramid_sparse_attention,
)
from psa_core.attention.choose import choose_recipes
from psa_core.attention.steps import trial_of
from psa_core.attention.trial_rows import ROWS
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed
from psa_core.ops.causal import Causal, causal_levels
from psa_core.ops.precision import precision_that_runs

from ..support.tensors import DEVICE, Shape, random_levels, random_qkv, relative_error

pytestmark = pytest.mark.usefixtures("poisoned_memory")

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

# Query tokens, key tokens, heads of queries and of keys.
CALLS = [(300, 300, 4, 2), (130, 301, 6, 3), (1, 40, 2, 2), (200, 455, 4, 1)]
each_call = pytest.mark.parametrize("call", CALLS, ids=str)
FULL = PSAConfig(block_n=32, mask_ratios={1: (0, 1)})
QUOTAS = {1: (0, 0.1), 2: (0.1, 0.3), 8: (0.3, 0.6), 0: (0.6, 1)}
CONFIGS = [
    PSAConfig(block_n=32),
    PSAConfig(block_n=64, mask_mode="topk", mask_ratios=QUOTAS, importance="sub_block_mass", use_sim_mask=True),
    PSAConfig(block_m=64, importance="mean", mask_ratios={4: (0, 1)}, min_full_ratio=0),
    PSAConfig(block_n=32, mask_mode="calibrated", target_density=0.4, use_sim_mask=True),
    PSAConfig(block_n=32, mask_mode="calibrated", target_error=0.3),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.mask_mode} {config.importance}")


def tensors(call: tuple[int, int, int, int]) -> Tensors:
    """In float64, in which no two blocks of a row are equal up to rounding."""
    q_tokens, k_tokens, heads, k_heads = call
    q, k, v = random_qkv(Shape(2, heads, q_tokens, k_tokens), torch.float64)
    return q, k[:, :k_heads], v[:, :k_heads]


def repeated(qkv: Tensors) -> Tensors:
    """The same call with keys and values for every head."""
    q, k, v = qkv
    group = q.shape[1] // k.shape[1]
    return q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)


def dense(qkv: Tensors) -> torch.Tensor:
    q, k, v = repeated(qkv)
    rows, columns = torch.arange(q.shape[2], device=DEVICE), torch.arange(k.shape[2], device=DEVICE)
    return scaled_dot_product_attention(q, k, v, columns <= rows[:, None] + k.shape[2] - q.shape[2])


@each_call
class TestFullResolution:
    def test_is_dense_attention(self, call: tuple[int, int, int, int]) -> None:
        qkv = tensors(call)
        out, info = pyramid_sparse_attention(*qkv, FULL, causal=True, return_info=True)
        assert relative_error(out, dense(qkv)) < 2e-6
        assert (info.density.item(), info.level_shares.tolist()) == (1, [1])
        assert torch.equal(PSAAttention(FULL)(*qkv, causal=True), out)

    def test_is_what_a_dense_config_runs(self, call: tuple[int, int, int, int]) -> None:
        qkv = tensors(call)
        out, info = pyramid_sparse_attention(*qkv, PSAConfig(type="dense"), causal=True, return_info=True)
        assert relative_error(out, dense(qkv)) < 2e-6
        assert info.density.item() == 1
        q, k, v = qkv
        mask = Causal(q.shape[2], k.shape[2], 128, 128)
        assert torch.equal(info.levels, causal_levels(torch.ones_like(info.levels), mask))
        out = pyramid_sparse_attention(q, k, v, PSAConfig(type="dense"))
        assert relative_error(out, scaled_dot_product_attention(*repeated(qkv))) < 2e-6


@each_call
def test_any_level_map(call: tuple[int, int, int, int]) -> None:
    q, k, v = tensors(call)
    levels = random_levels(Shape(2, call[2], call[0], call[1], 64, 64, 32))
    sizes = {"block_m": 64, "block_n": 32}
    assert relative_error(
        attention_from_levels(q, k, v, levels, **sizes), pyramid_attention_naive(q, k, v, levels, 64, 32)
    ) < 2e-6  # fmt: skip
    own = causal_levels(levels, Causal(call[0], call[1], 64, 32))
    expected = pyramid_attention_naive(q, k, v, own, 64, 32, causal=True)
    assert relative_error(attention_from_levels(q, k, v, levels, **sizes, causal=True), expected) < 2e-6


@each_call
@each_config
def test_runs_the_map_that_it_tells(call: tuple[int, int, int, int], config: PSAConfig) -> None:
    qkv = tensors(call)
    options: dict[str, Any] = {"sinks": [(3, 40, True)], "causal": True}
    out, info = pyramid_sparse_attention(*qkv, config, **options, return_info=True)
    expected = pyramid_attention_naive(*qkv, info.levels, config.block_m, config.block_n, causal=True)
    assert relative_error(out, expected) < 2e-6
    mask = Causal(*call[:2], config.block_m, config.block_n)
    assert torch.equal(info.levels, causal_levels(info.levels, mask))
    kept = info.levels.double().reciprocal().nan_to_num(posinf=0).mean() / mask.visible_share
    assert info.density.item() == pytest.approx(kept.item())
    # The same but for the order of sums.
    each = pyramid_sparse_attention(*repeated(qkv), config, **options)
    assert relative_error(out, each) < 2e-6


@pytest.mark.skipif(not triton_installed(), reason="Triton is not installed")
@pytest.mark.parametrize(
    ("config", "bound"), [(CONFIGS[1], 3e-3), (CONFIGS[3], 3e-3), (CONFIGS[0].replace(precision="auto"), 2e-2)]
)
def test_kernels_run_the_map_that_they_tell(config: PSAConfig, bound: float) -> None:
    q, k, v = (x[:1].half() for x in tensors((200, 301, 2, 1)))
    options: dict[str, Any] = {"sinks": [(3, 40, True)], "causal": True, "backend": "triton"}
    out, info = pyramid_sparse_attention(q, k, v, config, **options, return_info=True)
    # Of Hopper's GPUs "auto" takes the kernel that is not quantised.
    precision = precision_that_runs(config.precision, q.device, q.dtype, q.shape[3])
    assert (info.backend, info.precision) == ("triton", precision)
    expected = pyramid_attention_naive(q, k, v, info.levels, config.block_m, config.block_n, causal=True)
    assert relative_error(out, expected) < bound


@each_config
def test_a_few_heads_at_a_time(config: PSAConfig) -> None:
    qkv = tensors((200, 300, 6, 3))
    out, info = pyramid_sparse_attention(*qkv, config, causal=True, return_info=True)
    # Too little for one: a head of keys at a time, with the heads of queries that read it.
    bounded = config.replace(max_extra_memory=1e-6)
    trial = trial_of(*qkv, bounded, None, (), None, "torch", causal=True)
    assert [(part.q.shape[:2], part.k.shape[:2]) for part in trial.parts] == [((1, 2), (1, 1))] * 6
    parts, parts_info = pyramid_sparse_attention(*qkv, bounded, causal=True, return_info=True)
    assert torch.equal(parts_info.levels, info.levels)
    assert relative_error(parts, out) < 2e-6
    assert parts_info.density.item() == pytest.approx(info.density.item())


def test_compiled() -> None:
    qkv = tensors(CALLS[1])
    torch._dynamo.reset()
    compiled = torch.compile(pyramid_sparse_attention, fullgraph=True, backend="aot_eager")
    for config in (CONFIGS[1], CONFIGS[3]):
        out, info = compiled(*qkv, config, causal=True, return_info=True)
        expected, expected_info = pyramid_sparse_attention(*qkv, config, causal=True, return_info=True)
        assert torch.equal(out, expected)
        assert torch.equal(info.level_shares, expected_info.level_shares)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.integers(0, 1 << 32), st.sampled_from(CALLS), st.sampled_from(CONFIGS), st.data())
def test_the_future_changes_no_bit_of_the_past(seed: int, call: tuple, config: PSAConfig, data: st.DataObject) -> None:
    torch.manual_seed(seed)
    qkv = tensors(call)
    options: dict[str, Any] = {"sinks": [(3, 40, True)] if data.draw(st.booleans()) else (), "causal": True}
    if config.mask_mode == "calibrated":
        options["calibration"] = calibrate(*qkv, config, **options)
    before = pyramid_sparse_attention(*qkv, config, **options)
    first = config.block_m * data.draw(st.integers(0, call[0] // config.block_m))
    for x in qkv:
        later = x[:, :, first + x.shape[2] - call[0] :]
        later.copy_(torch.randn_like(later) * 3)
    after = pyramid_sparse_attention(*qkv, config, **options)
    assert torch.equal(before[:, :, :first], after[:, :, :first])


def test_errors_of_a_trial_are_those_of_the_call() -> None:
    qkv = tensors((600, 700, 4, 2))
    config = PSAConfig(block_m=64, block_n=32, mask_mode="calibrated", target_density=0.3)
    trial = trial_of(*qkv, config, None, (), None, "torch", causal=True)
    choice = choose_recipes(trial)
    out = pyramid_sparse_attention(*qkv, config, causal=True)
    rows = trial.positions(trial.blocks)
    assert len(rows) == 8 * ROWS
    exact = dense(qkv)[:, :, rows]
    errors = (out[:, :, rows] - exact).norm(dim=(2, 3)) / exact.norm(dim=(2, 3))
    torch.testing.assert_close(choice.errors, errors, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"mask_mode": "calibrated", "target_density": 0.4}])
def test_heads_that_share_keys_take_their_own_orders(changes: dict[str, Any]) -> None:
    qkv = tensors((300, 300, 4, 2))
    config = PSAConfig(block_n=32, use_rearrange=True, rearrange_method="Semantic", **changes)
    out = pyramid_sparse_attention(*qkv, config, grid=(3, 10, 10))
    assert relative_error(out, pyramid_sparse_attention(*repeated(qkv), config, grid=(3, 10, 10))) < 1e-10


def test_gradients() -> None:
    qkv = tensors((130, 200, 4, 2))
    gradients = []
    for attend in (lambda *x: pyramid_sparse_attention(*x, FULL, causal=True), lambda *x: dense(x)):
        inputs = [x.detach().clone().requires_grad_() for x in qkv]
        gradients.append(torch.autograd.grad(attend(*inputs).square().sum(), inputs))
    for ours, expected in zip(*gradients, strict=True):
        assert relative_error(ours, expected) < 1e-5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"q": 2}, "causal = .* needs as many keys as queries, or more"),
        ({"heads": 3}, "q, k, v = .* must have as many heads, or q a multiple of those of k and v"),
        ({"grid": (1, 4, 10)}, "grid = .* must not be given for causal attention"),
        ({"config": PSAConfig(radial=RadialMask())}, "radial = 'a mask': is for videos that are made"),
        ({"config": PSAConfig(rearrange_method="Semantic")}, "rearrange_method = 'Semantic': puts tokens"),
        ({"sinks": [(0, 41, True)]}, "sinks = .* must end at 40 tokens or before"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], said: str) -> None:
    q, k, v = tensors((20, 40, 4, 2))
    if changes.pop("q", 0):
        q = torch.cat([q, q, q], 2)
    if changes.pop("heads", 0):
        k, v = (x.repeat(1, 2, 1, 1)[:, :3] for x in (k, v))
    with pytest.raises(ConfigError, match=said):
        pyramid_sparse_attention(q, k, v, **changes, causal=True)


def test_a_calibration_of_other_orders() -> None:
    qkv = tensors((300, 300, 4, 2))
    config = PSAConfig(mask_mode="calibrated", candidate_orders=("Gilbert",))
    calibration = calibrate(*qkv, config, grid=(3, 10, 10))
    with pytest.raises(ConfigError, match="calibration = 'Gilbert': must have all heads in raster order"):
        pyramid_sparse_attention(*qkv, config, calibration=calibration, causal=True)
