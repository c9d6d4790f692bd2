"""The scene mask against its token mask, and what a user may write for scenes."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psa_core import ConfigError
from psa_core.masks.scene import scene_levels
from psa_core.settings.scenes import ADJACENCIES, adjacency_matrix, check_scenes, read_adjacency, read_boundaries

from .scene_naive import scene_levels_naive, scene_of_frame

SEED_MATRIX = ((True, True, False), (True, True, True), (False, True, True))


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple, dict]:
    """Arguments of ``scene_levels``: scenes of at least one frame of tokens, any clip length that fits."""
    per_token = draw(st.sampled_from([1, 4, 8]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 12))
    frames = draw(st.integers(1, min(max(500 // (height * width), 1), 40)))
    # The last video frame of frame g of tokens is per_token * g + extra.
    extra = per_token - 4 if per_token > 1 else 0
    end = per_token * (frames - 1) + extra + 1
    end -= draw(st.integers(0, min(per_token, end) - 1))
    cuts = draw(st.sets(st.integers(1, max(end - 1, 1)), max_size=4)) - {end}
    boundaries = (0, *sorted(cuts), end)
    scenes = len(boundaries) - 1
    matrix = tuple(tuple(i == j or draw(st.booleans()) for j in range(scenes)) for i in range(scenes))
    kwargs = {
        "block_m": draw(st.sampled_from([64, 128])),
        "block_n": draw(st.sampled_from([32, 64, 128])),
        "text_length": draw(st.sampled_from([0, 1, 100, 226])),
        "frames_per_token": per_token,
        "reference_frames": (draw(st.integers(0, 2)), draw(st.integers(0, 2))),
    }
    frames += sum(kwargs["reference_frames"])
    adjacency = draw(st.sampled_from([*ADJACENCIES, matrix]))
    return ((frames, height, width), boundaries, adjacency), kwargs


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_equals_the_token_mask(case):
    (grid, boundaries, adjacency), kwargs = case
    clip = range(grid[0] - sum(kwargs["reference_frames"]))
    used = {scene_of_frame(g, kwargs["frames_per_token"], boundaries) for g in clip}
    if len(used) < len(boundaries) - 1:
        with pytest.raises(ConfigError, match="has its middle in the scene"):
            scene_levels(grid, boundaries, adjacency, **kwargs)
        return
    levels = scene_levels(grid, boundaries, adjacency, **kwargs)

    assert levels.dtype == torch.uint8
    assert torch.equal(levels, scene_levels_naive(grid, boundaries, adjacency, **kwargs))


@pytest.mark.parametrize("block_n", [32, 64, 128])
@pytest.mark.parametrize(
    ("grid", "boundaries", "per_token", "text_length"),
    [
        ((12, 16, 16), (0, 4, 9, 12), 1, 0),
        ((12, 16, 16), (0, 15, 30, 45), 4, 226),
        ((7, 10, 10), (0, 15, 30, 49), 8, 100),
        ((9, 5, 26), (0, 2, 3, 4, 9), 1, 1),
    ],
)
@pytest.mark.parametrize("adjacency", [*ADJACENCIES, "one way"])
def test_equals_the_token_mask_in_real_proportions(grid, boundaries, per_token, text_length, adjacency, block_n):
    scenes = len(boundaries) - 1
    if adjacency == "one way":
        adjacency = tuple(tuple(j <= i for j in range(scenes)) for i in range(scenes))
    kwargs = {"block_m": 128, "block_n": block_n, "text_length": text_length, "frames_per_token": per_token}
    levels = scene_levels(grid, boundaries, adjacency, **kwargs)

    assert torch.equal(levels, scene_levels_naive(grid, boundaries, adjacency, **kwargs))
    if adjacency == "all":
        assert (levels == 1).all()
    else:
        assert (levels == 0).any()


@pytest.mark.parametrize(
    ("per_token", "boundaries", "scene_of_frame"),
    [
        (1, (0, 1, 4), [0, 1, 1, 1]),
        # Video frames 0 | 1 to 4 | 5 to 8 | 9 to 12, middles 0, 2, 6 and 10.
        (4, (0, 6, 13), [0, 0, 1, 1]),
        (4, (0, 7, 13), [0, 0, 0, 1]),
        (4, (0, 2, 10), [0, 1, 1, 1]),
        # Video frames 0 to 4 | 5 to 12 | 13 to 20 | 21 to 28, middles 2, 8, 16 and 24.
        (8, (0, 16, 29), [0, 0, 1, 1]),
        (8, (0, 17, 29), [0, 0, 0, 1]),
        # The clip ends with video frame 21, alone in the last frame of tokens.
        (8, (0, 20, 22), [0, 0, 0, 1]),
    ],
)
def test_a_frame_of_tokens_belongs_to_the_scene_of_its_middle_video_frame(per_token, boundaries, scene_of_frame):
    grid = (4, 8, 16)
    levels = scene_levels(grid, boundaries, "own", block_m=128, block_n=128, frames_per_token=per_token)[0, 0]

    expected = torch.tensor(scene_of_frame)
    assert torch.equal(levels.bool(), expected[:, None] == expected)


def test_row_i_says_what_scene_i_sees():
    levels = scene_levels((2, 8, 16), (0, 1, 2), "1 1; 0 1", block_m=128, block_n=128)
    assert levels[0, 0].tolist() == [[1, 1], [0, 1]]


def test_reference_frames_see_and_are_seen_by_all_and_are_not_counted():
    levels = scene_levels((5, 8, 16), (0, 1, 2), "own", block_m=128, block_n=128, reference_frames=(1, 2))[0, 0]
    assert levels.tolist() == [[1] * 5, [1, 1, 0, 1, 1], [1, 0, 1, 1, 1], [1] * 5, [1] * 5]
    with pytest.raises(ConfigError, match=r"reference_frames = -1"):
        scene_levels((5, 8, 16), (0, 1, 2), block_m=128, block_n=128, reference_frames=(-1, 0))


def test_text_and_shared_blocks_are_kept():
    # Behind 64 tokens of text, two scenes of 192 each: their border is that of two blocks.
    levels = scene_levels((2, 12, 16), (0, 1, 2), "own", block_m=128, block_n=128, text_length=64)[0, 0]
    assert levels.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1], [1, 0, 1, 1]]
    # The second block of 128 straddles both scenes.
    levels = scene_levels((2, 12, 16), (0, 1, 2), "own", block_m=128, block_n=128)[0, 0]
    assert levels.tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize(
    "value",
    [
        "0, 15, 30, 45",
        "[0, 15, 30, 45]",
        "0;15;30;45",
        " 0 15\t30\n45\n",
        "0\r\n15,\n30 ; 45,",
        (0, 15, 30, 45),
        [0, 15, 30, 45],
    ],
)
def test_boundaries_are_read(value):
    assert read_boundaries(value) == (0, 15, 30, 45)


@pytest.mark.parametrize("value", ["", " \n", (), []])
def test_no_boundaries_are_no_scenes(value):
    assert read_boundaries(value) == ()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0, 1.5, 3", "'1.5' is not a whole number"),
        ("0 ten 30", "'ten' is not a whole number"),
        ("0 1_0 30", "'1_0' is not a whole number"),
        ((0, 15.0, 30), "15.0 is not a whole number"),
        ((0, True, 30), "True is not a whole number"),
        ((0, "15", 30), "'15' is not a whole number"),
        ("2, 15, 30", "not with 2"),
        ("-1, 15", "not with -1"),
        ("0, 15, 15, 30", "15 follows 15"),
        ("0, 30, 15", "15 follows 30"),
        ("0", "must be 2 numbers or more"),
        (45, "must be text or a sequence"),
        (None, "must be text or a sequence"),
    ],
)
def test_errors_in_boundaries_name_the_number(value, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        read_boundaries(value)
    assert caught.value.key == "scene_boundaries"
    assert caught.value.value == value


@pytest.mark.parametrize(
    "value",
    [
        "[[true, true, false], [true, true, true], [false, true, true]]",
        "[[True, True, False],\n [True, True, True],\n [False, True, True]]",
        "[[1, 1, 0], [1, 1, 1], [0, 1, 1]]",
        "1 1 0; 1 1 1; 0 1 1",
        "1 1 0; 1 1 1; 0 1 1;",
        "1,1,0/1,1,1/0,1,1",
        "1, 1, 0\r\n1, 1, 1\r\n\r\n0, 1, 1\r\n",
        "1, 1, 0,\n1, 1, 1,\n0, 1, 1",
        "true true false; true true true; FALSE TRUE TRUE",
        SEED_MATRIX,
        [[1, 1, 0], [1, 1, 1], [0, 1, 1]],
        np.array(SEED_MATRIX),
    ],
)
def test_a_matrix_is_read(value):
    matrix = read_adjacency(value)

    assert matrix == SEED_MATRIX
    assert {type(entry) for row in matrix for entry in row} == {bool}
    assert adjacency_matrix(value, 3).tolist() == [list(row) for row in SEED_MATRIX]


@pytest.mark.parametrize("word", ADJACENCIES)
def test_words_are_read(word):
    assert read_adjacency(word) == word
    assert read_adjacency(f" {word}\n") == word


def test_words_as_matrices():
    assert adjacency_matrix("own", 3).tolist() == np.eye(3, dtype=bool).tolist()
    assert adjacency_matrix("all", 3).all()
    assert adjacency_matrix("neighbours", 4).astype(int).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 1, 1, 1],
        [0, 0, 1, 1],
    ]
    for word, scenes in itertools.product(ADJACENCIES, (1, 2)):
        assert adjacency_matrix(word, scenes).dtype == bool
        assert adjacency_matrix(word, scenes).shape == (scenes, scenes)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("1 1 0; 1 1; 0 1 1", "must be square, 3 by 3, but row 1 is 2 long"),
        ("1 1 0", "must be square, 1 by 1, but row 0 is 3 long"),
        ([[1], [1, 1]], "must be square, 2 by 2, but row 0 is 1 long"),
        ("1 0; 1 2", "row 1, column 1 is '2'"),
        ("[[1, 0], [0.5, 1]]", "row 1, column 0 is 0.5"),
        ([[True, None], [False, True]], "row 0, column 1 is None"),
        ("1 0; 1 0", "row 1, column 1 is '0', but a scene must see itself"),
        (((False,),), "row 0, column 0 is False, but a scene must see itself"),
        ("[[1, 0], [1", "is not JSON"),
        ("[1, 0]", "row 0 is 1"),
        ([True, True], "row 0 is True"),
        ("neighbors", "must be one of neighbours, all, own, or a matrix"),
        ("", "must be one of neighbours, all, own, or a matrix"),
        ([], "must be one of neighbours, all, own, or a matrix"),
        ("[]", "must be one of neighbours, all, own, or a matrix"),
        (None, "must be one of neighbours, all, own, or a matrix"),
    ],
)
def test_errors_in_a_matrix_name_row_and_column(value, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        read_adjacency(value)
    assert caught.value.key == "scene_adjacency"


def test_a_matrix_of_another_size_names_both_numbers():
    with pytest.raises(ConfigError, match=r"^scene_adjacency = .* each of 2 scenes, not 3 rows"):
        adjacency_matrix(SEED_MATRIX, 2)
    with pytest.raises(ConfigError, match=r"^scene_adjacency = .* each of 2 scenes, not 3 rows"):
        check_scenes("0, 5, 10", SEED_MATRIX, 10)


@pytest.mark.parametrize(
    ("frames", "per_token", "least", "most"),
    [(13, 4, 46, 49), (1, 4, 1, 1), (13, 1, 13, 13), (11, 8, 78, 85), (1, 8, 1, 5)],
)
def test_the_last_boundary_is_the_end_of_a_clip_that_makes_so_many_frames(frames, per_token, least, most):
    for end in range(max(least - 2, 1), most + 3):
        if least <= end <= most:
            check_scenes((0, end), "own", frames, per_token)
        else:
            with pytest.raises(ConfigError, match=rf"{end} (is not|lies beyond) the end; the last must be {least}\b"):
                check_scenes((0, end), "own", frames, per_token)


@pytest.mark.parametrize(
    ("boundaries", "frames", "per_token", "says"),
    [
        ("0 15 45", 13, 4, "45 is not the end; the last must be 46 to 49, the end of a clip of 13 latent frames"),
        ("0 15 50", 13, 4, "50 lies beyond the end; the last must be 46 to 49, the end of a clip of 13 latent frames"),
        ("0 60 70", 13, 4, "60 lies beyond the end; the last must be 46 to 49"),
        ("0 9 12", 13, 1, "12 is not the end; the last must be 13, the end of a clip of 13 frames of tokens"),
        ("0 2", 1, 1, "2 lies beyond the end; the last must be 1, the end of a clip of 1 frame of tokens"),
        ("0 77", 11, 8, "the last must be 78 to 85, the end of a clip of 11 frames of tokens, two latent frames each"),
        ("0 11 13 49", 13, 4, "no latent frame has its middle in the scene from 11 to 13"),
        ("0 3 5 8 85", 11, 8, "no frame of tokens has its middle in the scene from 3 to 5"),
        ("0 2 85", 11, 8, "no frame of tokens has its middle in the scene from 0 to 2"),
        ((), 13, 4, "must be 2 numbers or more"),
        ("0 x", 13, 4, "'x' is not a whole number"),
    ],
)
def test_scenes_that_do_not_fit_the_clip_name_the_number(boundaries, frames, per_token, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        check_scenes(boundaries, "neighbours", frames, per_token)
    assert caught.value.key == "scene_boundaries"
    with pytest.raises(ConfigError, match=re.escape(says)):
        scene_levels((frames, 4, 4), boundaries, block_m=128, block_n=128, frames_per_token=per_token)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frames_per_token", 2),
        ("frames_per_token", 4.0),
        ("block_m", 32),
        ("block_n", 48),
        ("text_length", -1),
        ("text_length", True),
        ("grid", (0, 4, 4)),
        ("grid", (4, 4.0, 4)),
    ],
)
def test_errors_name_the_argument(key, value):
    arguments = {"grid": (4, 8, 8), "boundaries": "0 4", "block_m": 128, "block_n": 128} | {key: value}
    with pytest.raises(ConfigError, match=rf"^{key} = "):
        scene_levels(**arguments)
