"""Sinks around a video: where they lie in the level map, in any order of the video and under masks; what is refused."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core import ConfigError, PSAConfig, calibrate, pyramid_sparse_attention
from psa_core.ops.attention.naive import pyramid_attention_naive
from psa_core.ops.backends import triton_installed
from psa_core.ops.reorder import METHODS, order_index
from psa_core.settings.sinks import read_sinks, sink_tokens, video_start

from ..support.tensors import DEVICE, Shape, random_qkv, relative_error, softmax_attention

GRID = (3, 7, 9)
VIDEO = math.prod(GRID)
BLOCKS = {"block_m": 64, "block_n": 32}
CONFIG = PSAConfig(mask_ratios={1: (0, 0.1), 8: (0.1, 0.5), 0: (0.5, 1)}, mask_mode="topk", **BLOCKS)
AROUND = ((0, 40, False), (40, 47, True), (47 + VIDEO, 47 + VIDEO + 33, False))
Ranges = tuple[tuple[int, int, bool], ...]


@st.composite
def sinks(draw: st.DrawFn) -> Ranges:
    """In front of the video, behind it or around it; up to two on a side."""
    found: list[tuple[int, int, bool]] = []
    for start in (0, VIDEO):
        for _ in range(draw(st.integers(0, 2))):
            begin = found[-1][1] if found and (start == 0 or found[-1][1] > VIDEO) else start
            begin = begin if start == 0 else max(begin, VIDEO + sum(b - a for a, b, _ in found if a < VIDEO))
            found.append((begin, begin + draw(st.integers(1, 90)), draw(st.booleans())))
    return tuple(found)


def kept_at_level_1(ranges: Ranges, tokens: int) -> torch.Tensor:
    """Token by token: which block pairs must be at level 1."""
    rows, columns = math.ceil(tokens / 64), math.ceil(tokens / 32)
    kept = torch.zeros(rows, columns, dtype=torch.bool)
    for start, stop, dense_rows in ranges:
        for token in range(start, stop):
            kept[:, token // 32] = True
            if dense_rows:
                kept[token // 64] = True
    return kept


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(sinks(), st.sampled_from(sorted(METHODS)), st.integers(0, 1 << 32))
def test_equals_attention_over_its_map_with_sinks_at_level_1(ranges: Ranges, method: str, seed: int) -> None:
    torch.manual_seed(seed)
    front = video_start(read_sinks(ranges))
    tokens = VIDEO + sink_tokens(read_sinks(ranges))
    qkv = random_qkv(Shape(1, 2, tokens, tokens))
    config = CONFIG.replace(use_rearrange=method != "Raster", rearrange_method="Tile" if method == "Raster" else method)

    out, info = pyramid_sparse_attention(*qkv, config, grid=GRID, sinks=ranges, backend="torch", return_info=True)

    kept = kept_at_level_1(ranges, tokens)
    assert (info.levels[..., kept.to(DEVICE)] == 1).all()
    behind = tokens - front - VIDEO
    index = order_index((method,), GRID, config.tile_size, front, DEVICE, behind)[0]
    assert torch.equal(index[:front], torch.arange(front, device=DEVICE))
    assert torch.equal(index[front + VIDEO :], torch.arange(front + VIDEO, tokens, device=DEVICE))
    q, k, v = (x[:, :, index] for x in qkv)
    expected = torch.empty_like(out)
    expected[:, :, index] = pyramid_attention_naive(q, k, v, info.levels, 64, 32).to(out)
    assert relative_error(out, expected) < 2e-6


def test_text_length_is_the_short_form_of_a_sink_in_front() -> None:
    qkv = random_qkv(Shape(2, 1, 33 + VIDEO, 33 + VIDEO))
    for given in ({"mask_mode": "topk"}, {"mask_mode": "calibrated"}, {"radial": {"mode": "finer wins"}}):
        config = CONFIG.replace(**given)
        short = pyramid_sparse_attention(*qkv, config, grid=GRID, text_length=33)
        assert torch.equal(pyramid_sparse_attention(*qkv, config, grid=GRID, sinks=[(0, 33, True)]), short)
    both = pyramid_sparse_attention(*qkv, CONFIG, grid=GRID, text_length=20, sinks=[(20, 33, True)])
    assert relative_error(both, pyramid_sparse_attention(*qkv, CONFIG, grid=GRID, text_length=33)) < 1e-6


@pytest.mark.skipif(not triton_installed(), reason="needs Triton")
def test_kernels_give_what_plain_torch_gives() -> None:
    tokens = VIDEO + sink_tokens(read_sinks(AROUND))
    # Others may have blocks whose importances are equal up to rounding, which the two may rank otherwise.
    torch.manual_seed(8)
    qkv = random_qkv(Shape(1, 1, tokens, tokens))
    out, info = pyramid_sparse_attention(*qkv, CONFIG, grid=GRID, sinks=AROUND, backend="triton", return_info=True)
    other, expected = pyramid_sparse_attention(*qkv, CONFIG, grid=GRID, sinks=AROUND, backend="torch", return_info=True)
    assert torch.equal(info.levels, expected.levels)
    assert relative_error(out, other) < 2e-6


@pytest.mark.parametrize("mode", ["radial only", "intersect", "finer wins", "coarsen"])
def test_masks_keep_all_that_has_to_do_with_them(mode: str) -> None:
    tokens = VIDEO + sink_tokens(read_sinks(AROUND))
    radial = {"mode": mode, "decay_factor": 0.1, "block_size": 4}
    config = CONFIG.replace(radial=radial)
    call = {"grid": GRID, "sinks": AROUND, "return_info": True}

    out, info = pyramid_sparse_attention(*random_qkv(Shape(1, 1, tokens, tokens)), config, **call)

    assert torch.isfinite(out).all()
    assert (info.levels[..., kept_at_level_1(AROUND, tokens).to(DEVICE)] == 1).all()
    if mode in ("radial only", "coarsen"):
        # It knows nothing of the queries in front either, and leaves them all they see.
        assert (info.levels[:, :, 0] == 1).all()


@pytest.mark.parametrize("target", [{"target_density": 0.3}, {"target_error": 0.3}])
def test_calibrated_heads_have_them_too(target: dict[str, float]) -> None:
    tokens = VIDEO + sink_tokens(read_sinks(AROUND))
    qkv = random_qkv(Shape(1, 2, tokens, tokens))
    config = PSAConfig(mask_mode="calibrated", **target, **BLOCKS)
    out, info = pyramid_sparse_attention(*qkv, config, grid=GRID, sinks=AROUND, return_info=True)
    assert (info.levels[..., kept_at_level_1(AROUND, tokens).to(DEVICE)] == 1).all()
    given = calibrate(*qkv, config, grid=GRID, sinks=AROUND)
    assert given.text_length == 47
    assert torch.equal(out, pyramid_sparse_attention(*qkv, config, grid=GRID, sinks=AROUND, calibration=given))


def test_all_of_it_sinks_is_dense_attention() -> None:
    qkv = random_qkv(Shape(1, 2, 200, 200))
    out = pyramid_sparse_attention(*qkv, CONFIG, sinks=[(0, 200, False)])
    assert relative_error(out, softmax_attention(*qkv)) < 2e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"sinks": [(0, 5)]}, r"sinks = .*must be \(start, stop, dense_rows\)"),
        ({"sinks": 5}, r"sinks = 5: must be \(start, stop, dense_rows\)"),
        ({"sinks": [(5, 5, True)]}, r"must be \(start, stop, dense_rows\)"),
        ({"sinks": [(-1, 5, True)]}, r"must be \(start, stop, dense_rows\)"),
        ({"sinks": [(0, 5, True), (4, 9, True)]}, "must follow one another"),
        ({"text_length": 5, "sinks": [(4, 9, True)]}, "must follow one another"),
        ({"sinks": [(0, 201, True)]}, "must end at 200 tokens or before"),
        ({"grid": (2, 9, 10), "sinks": [(0, 19, True)]}, "19 tokens of sinks must make 200 tokens"),
        ({"grid": (2, 9, 10), "sinks": [(0, 10, True), (50, 60, True)]}, "lies within the video"),
    ],
)
def test_what_is_no_sink_is_named(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pyramid_sparse_attention(*random_qkv(Shape(1, 1, 200, 200)), CONFIG, **call)
