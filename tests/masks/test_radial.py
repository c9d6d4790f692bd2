"""The radial mask against its token mask."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import psa_core.masks.radial as radial
from psa_core import ConfigError, radial_levels
from psa_core.masks import blocks
from psa_core.masks.radial import frame_window

from ..support.little_work import little_work
from ..support.windows_numpy import WindowsNumpy
from .radial_naive import radial_levels_naive

RULES = ("wan", "cogvideox")


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, int, int]:
    """Grids of at most 1,600 tokens: many small frames, few large ones, one, and frames of a single token."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 25))
    return draw(st.integers(1, min(max(1600 // (height * width), 1), 300))), height, width


ARGUMENTS = st.fixed_dictionaries(
    {
        "block_m": st.sampled_from([64, 128]),
        "block_n": st.sampled_from([32, 64, 128]),
        "model_type": st.sampled_from(RULES),
        "decay_factor": st.sampled_from([0.05, 0.2, 0.5, 1.0, 1.7, 4.0]),
        "text_length": st.sampled_from([0, 1, 100, 226]),
        "block_size": st.sampled_from([1, 2, 7, 16, 37, 64, 128, 256]),
        "coarsen": st.booleans(),
    }
)


def _assert_equals_the_oracle(grid, arguments):
    levels = radial_levels(grid, **arguments)

    assert levels.dtype == torch.uint8
    assert levels.is_contiguous()
    assert torch.equal(levels, radial_levels_naive(grid, **arguments))


@settings(max_examples=125, deadline=None)
@given(grid=grids(), arguments=ARGUMENTS)
def test_equals_the_token_mask(grid, arguments):
    _assert_equals_the_oracle(grid, arguments)


@pytest.mark.parametrize("coarsen", [False, True])
@pytest.mark.parametrize("model_type", RULES)
@pytest.mark.parametrize(
    ("grid", "text_length", "block_m", "block_n", "decay_factor", "block_size"),
    [
        ((5, 15, 20), 0, 128, 128, 0.3, 16),
        ((5, 15, 20), 226, 64, 32, 0.1, 7),
        ((4, 30, 26), 0, 128, 32, 0.2, 64),
        ((4, 30, 26), 100, 64, 64, 0.05, 20),
        ((11, 16, 16), 0, 128, 128, 0.3, 37),
        ((20, 8, 16), 0, 128, 64, 1.0, 16),
        ((40, 7, 9), 1, 64, 32, 0.5, 16),
        ((90, 5, 7), 0, 128, 32, 2.0, 128),
        ((400, 1, 1), 0, 64, 32, 1.0, 1),
        ((200, 1, 3), 100, 128, 128, 0.2, 2),
        ((1, 40, 50), 1, 128, 64, 1.0, 128),
    ],
)
def test_equals_the_token_mask_on_larger_grids(
    grid, text_length, block_m, block_n, decay_factor, block_size, model_type, coarsen
):
    arguments = {
        "block_m": block_m,
        "block_n": block_n,
        "model_type": model_type,
        "decay_factor": decay_factor,
        "text_length": text_length,
        "block_size": block_size,
        "coarsen": coarsen,
    }
    _assert_equals_the_oracle(grid, arguments)


@pytest.mark.parametrize("model_type", RULES)
def test_large_and_small_frames_count_alike(model_type, monkeypatch):
    """Small frames are counted in int16; this is the largest of them."""
    grid = (3, 127, 129)
    kwargs = {"block_m": 128, "block_n": 32, "model_type": model_type, "decay_factor": 0.1, "block_size": 16}
    assert grid[1] * grid[2] == radial._SMALL_FRAME - 1
    levels = radial_levels(grid, **kwargs)
    monkeypatch.setattr(radial, "_SMALL_FRAME", 0)

    assert torch.equal(levels, radial_levels(grid, **kwargs))


@settings(max_examples=40, deadline=None)
@given(grid=grids(), arguments=ARGUMENTS)
@example((24, 8, 8), {"block_m": 64, "block_n": 32, "model_type": "wan", "decay_factor": 0.05, "block_size": 16})
def test_coarsening_keeps_what_is_kept_and_pools_the_rest_by_distance(grid, arguments):
    arguments = {**arguments, "coarsen": False}
    cut, pooled = (radial_levels(grid, **{**arguments, "coarsen": coarsen})[0, 0] for coarsen in (False, True))

    assert torch.equal(cut == 1, pooled == 1)
    text_length, frame_tokens = arguments.get("text_length", 0), grid[1] * grid[2]
    for i, j in (cut == 0).nonzero().tolist():
        frames = []
        for index, size in ((i, arguments["block_m"]), (j, arguments["block_n"])):
            stop = min((index + 1) * size - text_length, grid[0] * frame_tokens)
            frames.append(range((index * size - text_length) // frame_tokens, (stop - 1) // frame_tokens + 1))
        d = min(abs(f - g) for f in frames[0] for g in frames[1])
        assert pooled[i, j] == (2 if d < 4 else 4 if d < 8 else 8)


def test_a_long_video_is_pooled_by_all_three_levels():
    kwargs = {"block_m": 128, "block_n": 128, "model_type": "cogvideox", "decay_factor": 0.1, "coarsen": True}
    levels = radial_levels((21, 30, 52), **kwargs)[0, 0]
    blocks_a_frame = 30 * 52 // 128

    assert levels.unique().tolist() == [1, 2, 4, 8]
    assert levels[0, -1] == levels[-1, 0] == 8
    assert set(levels[0, : 4 * blocks_a_frame].tolist()) == {1, 2}


@settings(max_examples=40, deadline=None)
@given(grid=grids(), arguments=ARGUMENTS)
def test_text_sees_and_is_seen_by_all(grid, arguments):
    levels = radial_levels(grid, **arguments)[0, 0]
    text_length = arguments["text_length"]

    assert (levels[: -(-text_length // arguments["block_m"])] == 1).all()
    assert (levels[:, : -(-text_length // arguments["block_n"])] == 1).all()


@settings(max_examples=40, deadline=None)
@given(grid=grids(), arguments=ARGUMENTS)
def test_dense_keeps_everything(grid, arguments):
    levels = radial_levels(grid, **arguments, sparsity_type="dense")

    assert levels.shape == radial_levels(grid, **arguments).shape
    assert levels.dtype == torch.uint8
    assert (levels == 1).all()


@settings(max_examples=50, deadline=None)
@given(
    distance=st.integers(0, 100),
    frame_tokens=st.integers(1, 4000),
    model_type=st.sampled_from(RULES),
    factors=st.tuples(st.floats(0.01, 8), st.floats(0.01, 8)),
    block_size=st.integers(1, 256),
)
def test_a_window_does_not_shrink_with_a_larger_factor(distance, frame_tokens, model_type, factors, block_size):
    narrow, wide = (frame_window(distance, frame_tokens, model_type, factor, block_size) for factor in sorted(factors))
    assert -1 <= narrow <= wide


def test_far_frames_are_cut_and_near_ones_kept():
    grid = (21, 30, 52)
    levels = radial_levels(grid, block_m=128, block_n=128, model_type="wan", decay_factor=0.2)[0, 0]

    share = levels.float().mean().item()
    assert 0.05 < share < 0.5
    assert levels.diagonal().all()
    # Wan's sink: every query block sees the blocks of frame 0.
    assert levels[:, : 30 * 52 // 128].all()
    wider = radial_levels(grid, block_m=128, block_n=128, model_type="wan", decay_factor=1.0)[0, 0]
    assert wider.sum() > levels.sum()


def test_tiny_frames_leave_rows_empty():
    """Each of a block's rows sees its own frame alone, so no column is covered in a third of them."""
    levels = radial_levels((256, 1, 1), block_m=128, block_n=128, model_type="cogvideox", block_size=128)
    assert not levels.any()


@pytest.mark.parametrize("coarsen", [False, True])
@pytest.mark.parametrize("block_n", [32, 128])
@pytest.mark.parametrize("grid", [(33, 45, 88), (84, 30, 52)])
def test_a_long_video_takes_little_work_and_memory(grid, block_n, coarsen):
    kwargs = {"block_m": 128, "block_n": block_n, "model_type": "wan", "coarsen": coarsen}
    with little_work():
        levels = radial_levels(grid, **kwargs)

    tracemalloc.start()
    radial_levels(grid, **kwargs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tokens = grid[0] * grid[1] * grid[2]
    assert levels.shape == (1, 1, -(-tokens // 128), -(-tokens // block_n))
    assert peak < 16 * (levels.numel() + tokens)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "hunyuan"),
        ("sparsity_type", "sparse"),
        ("coarsen", 1),
        ("coarsen", None),
        ("decay_factor", 0.0),
        ("decay_factor", float("inf")),
        ("decay_factor", float("nan")),
        ("decay_factor", True),
        ("decay_factor", "1"),
        ("block_n", 48),
        ("block_n", 128.0),
        ("block_m", 32),
        ("text_length", -1),
        ("text_length", 1.0),
        ("text_length", True),
        ("block_size", 0),
        ("block_size", 64.0),
        ("block_size", True),
        ("grid", (0, 4, 4)),
        ("grid", (4, 4)),
        ("grid", (4, 4.0, 4)),
        ("grid", (True, 4, 4)),
        ("grid", 4),
    ],
)
def test_errors_name_the_argument(key, value):
    arguments = {"grid": (4, 8, 8), "block_m": 128, "block_n": 128, "model_type": "wan"} | {key: value}
    with pytest.raises(ConfigError, match=rf"^{key} = "):
        radial_levels(arguments.pop("grid"), **arguments)


@pytest.mark.parametrize("grid", [(3, 5, 7), (9, 16, 20)])
def test_int32_of_numpy_changes_nothing(monkeypatch: pytest.MonkeyPatch, grid: tuple[int, int, int]) -> None:
    arguments = {"block_m": 128, "block_n": 64, "model_type": "wan", "decay_factor": 0.3, "text_length": 21}
    expected = radial_levels(grid, **arguments)
    for module in (radial, blocks):
        monkeypatch.setattr(module, "np", WindowsNumpy())
    assert {x.dtype for x in blocks.blocks_of(grid, 64, 21)} == {np.dtype(np.int64)}
    assert torch.equal(radial_levels(grid, **arguments), expected)
