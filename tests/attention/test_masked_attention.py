"""Attention under a radial mask and scenes: what the map decides, what it needs, and how it meets selection."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from psa_core import (
    ConfigError,
    PSAAttention,
    PSAConfig,
    RadialMask,
    attention_from_levels,
    compose,
    pyramid_sparse_attention,
    radial_levels,
    scene_levels,
)
from psa_core.attention import plan
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed, triton_refusal
from psa_core.ops.importance.estimators import sampled_max
from psa_core.ops.levels.naive import levels_from_importance_naive
from psa_core.ops.levels.rules import density, repair_empty_rows
from psa_core.settings.sinks import text_in_front

from ..support.tensors import DEVICE, Shape, random_qkv, relative_error

GRID, TEXT = (7, 6, 9), 33
TOKENS = math.prod(GRID) + TEXT
BLOCKS = {"block_m": 64, "block_n": 32}
RATIOS = {1: (0, 0.2), 2: (0.2, 0.3), 8: (0.3, 0.6), 0: (0.6, 1)}
NARROW = {"decay_factor": 0.2, "block_size": 8}
DTYPE = torch.float16 if DEVICE.type == "cuda" else torch.float32
BACKENDS = ["torch", pytest.param("triton", marks=pytest.mark.skipif(not triton_installed(), reason="needs Triton"))]


@pytest.fixture
def qkv() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return random_qkv(Shape(2, 2, TOKENS, TOKENS), DTYPE)


@pytest.fixture
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any look at importance fails, but those of the first trial of the kernels."""
    triton_refusal(torch.empty(0, device=DEVICE).device, DTYPE, 64)
    monkeypatch.setattr(plan, "ESTIMATORS", {})


def config(**settings: Any) -> PSAConfig:
    return PSAConfig(**{**BLOCKS, "mask_ratios": RATIOS, **settings})


def bound() -> float:
    return 5e-3 if DEVICE.type == "cuda" else 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coarsen", [False, True])
@pytest.mark.usefixtures("nothing_chosen")
def test_the_mask_alone_is_attention_over_its_map(qkv: Any, coarsen: bool, backend: str) -> None:
    mask = RadialMask(mode="coarsen" if coarsen else "radial only", **NARROW)
    out, info = pyramid_sparse_attention(
        *qkv, config(radial=mask), grid=GRID, text_length=TEXT, backend=backend, return_info=True
    )
    expected = radial_levels(GRID, model_type="cogvideox", text_length=TEXT, coarsen=coarsen, **BLOCKS, **NARROW)
    assert torch.equal(info.levels.cpu(), expected.expand(2, 2, -1, -1))
    assert float(info.density) == pytest.approx(float(density(expected)))
    assert 0.1 < float(info.density) < 0.9
    assert set(expected.unique().tolist()) == ({1, 2, 4} if coarsen else {0, 1})
    levels = expected.expand(2, 2, -1, -1).to(DEVICE)
    assert relative_error(out, pyramid_attention_naive(*qkv, levels, 64, 32)) < bound()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", ["intersect", "finer wins"])
@pytest.mark.parametrize("use_sim_mask", [False, True])
def test_selection_meets_the_mask(qkv: Any, rule: str, use_sim_mask: bool, backend: str) -> None:
    q, k, v = qkv
    settings = config(radial=RadialMask(mode=rule, **NARROW), use_sim_mask=use_sim_mask, mask_mode="topk")
    out, info = pyramid_sparse_attention(
        q, k, v, settings, grid=GRID, text_length=TEXT, backend=backend, return_info=True
    )
    mask = radial_levels(GRID, model_type="cogvideox", text_length=TEXT, **BLOCKS, **NARROW).to(DEVICE)
    # Not the oracle's, which may rank two otherwise that are equal up to rounding.
    importance = sampled_max(q, k, 64, 32, backend)
    chosen = levels_from_importance_naive(importance, settings, None, mask, rule, text_in_front(TEXT)).to(DEVICE)
    text = torch.zeros_like(chosen, dtype=torch.bool)
    text[:, :, :1] = text[..., :2] = True
    kept = chosen[~text] != 0
    if rule == "intersect":
        assert not (kept & (mask.expand_as(chosen)[~text] == 0)).any()
    else:
        assert kept[mask.expand_as(chosen)[~text] != 0].all()
    if use_sim_mask:
        # A cap only makes finer, and skips and keeps nothing of its own.
        assert torch.equal(info.levels == 0, chosen == 0)
        assert (info.levels <= chosen).all()
    else:
        # fp16 importances may rank otherwise on a GPU.
        assert (info.levels != chosen).float().mean() <= (0.02 if DEVICE.type == "cuda" else 0)
    assert relative_error(out, pyramid_attention_naive(q, k, v, info.levels, 64, 32)) < bound()


@pytest.mark.usefixtures("nothing_chosen")
def test_tokens_keep_the_order_of_the_model(qkv: Any) -> None:
    mask = RadialMask(**NARROW)
    outs = [
        pyramid_sparse_attention(*qkv, config(radial=mask, use_rearrange=on), grid=GRID, text_length=TEXT)
        for on in (False, True)
    ]
    assert torch.equal(*outs)


@pytest.mark.parametrize("model_type", ["auto", "wan", "cogvideox"])
@pytest.mark.parametrize("text", [0, TEXT])
def test_auto_takes_the_rule_by_the_text(model_type: str, text: int) -> None:
    qkv = random_qkv(Shape(1, 1, math.prod(GRID) + text, math.prod(GRID) + text))
    mask = RadialMask(model_type=model_type, **NARROW)
    _, info = pyramid_sparse_attention(
        *qkv, config(radial=mask), grid=GRID, text_length=text, backend="torch", return_info=True
    )
    rule = model_type if model_type != "auto" else ("cogvideox" if text else "wan")
    assert torch.equal(info.levels.cpu(), radial_levels(GRID, model_type=rule, text_length=text, **BLOCKS, **NARROW))


@pytest.mark.parametrize("mode", ["radial only", "coarsen"])
def test_reference_frames_are_at_no_distance(qkv: Any, mode: str) -> None:
    mask = RadialMask(mode=mode, reference_frames=(0, 1), **NARROW)
    _, info = pyramid_sparse_attention(
        *qkv, config(radial=mask), grid=GRID, text_length=TEXT, backend="torch", return_info=True
    )
    decay = radial_levels(GRID, model_type="cogvideox", text_length=TEXT, coarsen=mode == "coarsen", **BLOCKS, **NARROW)
    last = TEXT + (GRID[0] - 1) * GRID[1] * GRID[2]
    rows, columns = last // BLOCKS["block_m"], last // BLOCKS["block_n"]
    expected = decay.clone()
    expected[..., rows:, :] = expected[..., columns:] = 1
    assert not torch.equal(expected, decay)
    assert torch.equal(info.levels[:1, :1].cpu(), expected)


@pytest.mark.parametrize("mode", ["radial only", "coarsen"])
def test_scenes_cut_what_the_decay_leaves(qkv: Any, mode: str) -> None:
    mask = RadialMask(mode=mode, scene_boundaries="0, 9, 25", scene_adjacency="own", frames_per_token=4, **NARROW)
    _, info = pyramid_sparse_attention(
        *qkv, config(radial=mask), grid=GRID, text_length=TEXT, backend="torch", return_info=True
    )
    decay = radial_levels(GRID, model_type="cogvideox", text_length=TEXT, coarsen=mode == "coarsen", **BLOCKS, **NARROW)
    scenes = scene_levels(GRID, (0, 9, 25), "own", text_length=TEXT, frames_per_token=4, **BLOCKS)
    assert (scenes == 0).any()
    assert torch.equal(info.levels[:1, :1].cpu(), decay * scenes)


def test_scenes_alone(qkv: Any) -> None:
    mask = RadialMask(sparsity_type="dense", scene_boundaries=(0, 3, 7), scene_adjacency="own")
    _, info = pyramid_sparse_attention(
        *qkv, config(radial=mask), grid=GRID, text_length=TEXT, backend="torch", return_info=True
    )
    assert torch.equal(info.levels[:1, :1].cpu(), scene_levels(GRID, (0, 3, 7), "own", text_length=TEXT, **BLOCKS))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_tiny_frames_leave_empty_keep_their_own_block(backend: str) -> None:
    grid = (40, 3, 5)
    bare = radial_levels(grid, block_m=128, block_n=32, model_type="cogvideox")
    assert not bare.any(-1).all()
    qkv = random_qkv(Shape(1, 2, 600, 600), DTYPE)
    radial = RadialMask(model_type="cogvideox")
    out, info = pyramid_sparse_attention(
        *qkv, PSAConfig(block_n=32, radial=radial), grid=grid, backend=backend, return_info=True
    )
    assert torch.isfinite(out).all()
    own = torch.nn.functional.one_hot(torch.arange(5) * 4, 19).to(torch.uint8)
    filled = torch.where((bare[0, 0] != 0).any(-1, keepdim=True), bare[0, 0], own)
    assert torch.equal(info.levels[0, 1].cpu(), filled)


class TestBuiltOnce:
    def test_lists_and_maps_are_kept(self, qkv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        if not triton_installed():
            pytest.skip("needs Triton")
        plan._mask_levels.cache_clear()
        plan._mask_block_list.cache_clear()
        built = []
        original = plan.build_block_list
        monkeypatch.setattr(plan, "build_block_list", lambda *x: built.append(x) or original(*x))
        settings = config(radial=RadialMask(**NARROW))
        calls = [
            pyramid_sparse_attention(*qkv, settings, grid=GRID, text_length=TEXT, backend="triton") for _ in range(3)
        ]
        assert torch.equal(calls[0], calls[2])
        assert len(built) == 1
        pyramid_sparse_attention(*qkv, settings, grid=(7, 9, 6), text_length=TEXT, backend="triton")
        assert len(built) == 2

    def test_their_number_is_bounded(self) -> None:
        device = torch.device("cpu")
        for frames in range(1, 30):
            plan.mask_levels(config(radial=RadialMask()), (frames, 4, 4), (), 16 * frames, device)
        assert plan._mask_levels.cache_info().currsize <= 8
        assert plan._mask_block_list.cache_info().maxsize == 8

    def test_what_does_not_shape_the_map_makes_no_other(self) -> None:
        masks = [RadialMask(), RadialMask(mode="intersect", dense_layers=2, dense_timesteps=3, last_dense_timesteps=1)]
        maps = [plan.mask_levels(config(radial=mask), GRID, (), math.prod(GRID), torch.device("cpu")) for mask in masks]
        assert maps[0] is maps[1]
        other = plan.mask_levels(
            config(radial=RadialMask(mode="coarsen")), GRID, (), math.prod(GRID), torch.device("cpu")
        )
        assert not torch.equal(other, maps[0])


@pytest.mark.parametrize("level", [1, 2, 8])
@pytest.mark.usefixtures("nothing_chosen")
def test_one_level_for_all_needs_no_importance(qkv: Any, level: int) -> None:
    settings = config(mask_ratios={level: (0, 1)}, mask_mode="topk", use_rearrange=False)
    out, info = pyramid_sparse_attention(*qkv, settings, grid=GRID, text_length=TEXT, backend="torch", return_info=True)
    expected = torch.full_like(info.levels, level)
    expected[:, :, :1] = expected[..., :2] = 1
    assert torch.equal(info.levels, expected)
    assert relative_error(out, pyramid_attention_naive(*qkv, expected, 64, 32)) < bound()


@pytest.mark.parametrize(
    ("ratios", "mode", "min_full_ratio"), [({0: (0, 1)}, "topk", 0.06), ({8: (0, 1)}, "thresholdbound", 0.3)]
)
def test_one_level_that_is_not_for_all_is_chosen(qkv: Any, ratios: Any, mode: str, min_full_ratio: float) -> None:
    settings = config(mask_ratios=ratios, mask_mode=mode, min_full_ratio=min_full_ratio, use_rearrange=False)
    _, info = pyramid_sparse_attention(*qkv, settings, grid=GRID, backend="torch", text_length=TEXT, return_info=True)
    full = (info.levels[:, :, 1:, 2:] == 1).sum(-1)
    # All skipped leaves text alone, which is enough; the least share at full resolution is counted over the row.
    assert (full == 0).all() if mode == "topk" else (full > 0).all()


def test_the_module_takes_a_mask(qkv: Any) -> None:
    settings = config(radial=RadialMask(**NARROW))
    module = PSAAttention(settings, backend="torch")
    assert torch.equal(
        module(*qkv, GRID, TEXT),
        pyramid_sparse_attention(*qkv, settings, grid=GRID, text_length=TEXT, backend="torch"),
    )


@pytest.mark.usefixtures("nothing_chosen")
@pytest.mark.parametrize(
    ("settings", "call", "message"),
    [
        ({"radial": RadialMask()}, {}, "grid = None: a radial mask needs"),
        ({"mask_mode": "timestep"}, {"grid": GRID}, "mask_mode = 'timestep': needs the denoising step"),
        (
            {"radial": RadialMask()},
            {"grid": GRID, "static_levels": torch.ones(1, 1, 7, 13, dtype=torch.uint8)},
            "static_levels = .*must not be given beside",
        ),
        ({}, {"grid": GRID, "static_levels": torch.ones(1, 1, 7, 12, dtype=torch.uint8)}, "static_levels = .*12"),
        (
            {"radial": RadialMask(scene_boundaries="0, 9")},
            {"grid": GRID},
            r"scene_boundaries = \(0, 9\): 9 lies beyond the end",
        ),
    ],
)
def test_refused_before_anything_is_computed(qkv: Any, settings: Any, call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pyramid_sparse_attention(*qkv, config(**settings), text_length=TEXT, backend="torch", **call)


ONES = torch.ones(1, 1, 2, 2, dtype=torch.uint8)


class TestCompose:
    LEVELS = torch.tensor([0, 1, 2, 8, 64, 128], dtype=torch.uint8)

    def pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = torch.meshgrid(self.LEVELS, self.LEVELS, indexing="ij")
        return a[None, None].contiguous(), b[None, None].contiguous()

    def test_intersect_takes_the_coarser(self) -> None:
        a, b = self.pairs()
        expected = torch.maximum(a, b).masked_fill((a == 0) | (b == 0), 0)
        assert torch.equal(compose(a, b), expected)

    def test_finer_wins_keeps_what_either_keeps(self) -> None:
        a, b = self.pairs()
        expected = torch.where(a == 0, b, torch.where(b == 0, a, torch.minimum(a, b)))
        assert torch.equal(compose(a, b, "finer wins"), expected)

    def test_broadcasts_over_batch_and_heads(self) -> None:
        a, b = self.pairs()
        assert compose(a.expand(2, 1, -1, -1), b.expand(1, 3, -1, -1)).shape == (2, 3, 6, 6)

    @pytest.mark.parametrize(
        ("a", "b", "rule", "message"),
        [
            (ONES, ONES, "union", "rule"),
            (ONES, ONES.float(), "intersect", "float32"),
            (ONES, ONES[..., :1], "intersect", "blocks"),
        ],
    )  # fmt: skip
    def test_refusals(self, a: torch.Tensor, b: torch.Tensor, rule: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            compose(a, b, rule)


def test_a_composed_map_runs_as_a_given_one(qkv: Any) -> None:
    q, k, v = qkv
    mask = radial_levels(GRID, model_type="cogvideox", text_length=TEXT, **BLOCKS, **NARROW).to(DEVICE)
    coarse = torch.full_like(mask, 4)
    both = compose(mask, coarse, "finer wins")
    assert set(both.unique().tolist()) == {1, 4}
    out = attention_from_levels(q, k, v, both, **BLOCKS, backend="torch")
    full = repair_empty_rows(both, torch.zeros(2, 2, *both.shape[2:], device=DEVICE))
    assert relative_error(out, pyramid_attention_naive(q, k, v, full, 64, 32)) < bound()
