"""The radial mask against its token mask."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psa_core import ConfigError, radial_levels
from psa_core.ops.radial.naive import radial_levels_naive


@settings(max_examples=60, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 17)),
    text_length=st.sampled_from([0, 1, 128, 226]),
    block_m=st.sampled_from([64, 128]),
    block_n=st.sampled_from([32, 64, 128]),
    model_type=st.sampled_from(["wan", "cogvideox"]),
    decay_factor=st.sampled_from([0.2, 0.5, 1.0, 2.0]),
    block_size=st.sampled_from([16, 64, 128]),
)
def test_equals_the_token_mask(grid, text_length, block_m, block_n, model_type, decay_factor, block_size):
    kwargs = {
        "block_m": block_m,
        "block_n": block_n,
        "model_type": model_type,
        "decay_factor": decay_factor,
        "text_length": text_length,
        "block_size": block_size,
    }
    levels = radial_levels(grid, **kwargs)

    assert levels.dtype == torch.uint8
    assert torch.equal(levels, radial_levels_naive(grid, **kwargs))


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


def test_dense_keeps_everything():
    levels = radial_levels((5, 8, 8), block_m=128, block_n=32, model_type="wan", sparsity_type="dense")
    assert levels.all()


def test_a_long_video_takes_seconds_not_minutes():
    start = time.perf_counter()
    levels = radial_levels((33, 45, 88), block_m=128, block_n=128, model_type="wan")
    assert levels.shape == (1, 1, 1021, 1021)
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "hunyuan"),
        ("sparsity_type", "sparse"),
        ("decay_factor", 0.0),
        ("block_n", 48),
        ("block_m", 32),
        ("text_length", -1),
        ("block_size", 0),
        ("grid", (0, 4, 4)),
    ],
)
def test_errors_name_the_argument(key, value):
    arguments = {"grid": (4, 8, 8), "block_m": 128, "block_n": 128, "model_type": "wan"} | {key: value}
    with pytest.raises(ConfigError, match=rf"^{key} = "):
        radial_levels(arguments.pop("grid"), **arguments)
