"""The clips that the tiny video model learns from, and what can be read off a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")

from psa_core.models.tiny_video.vocabulary import COLOURS, MOTIONS, SHAPES, SLOTS, Words, words_of
from research.tiny_video import clips
from research.tiny_video.score import read_clip


def scenes_of(words: Words, seed: int = 0) -> clips.Scenes:
    """One random scene with one object, as these words have it."""
    scenes = clips.random_scenes(1, torch.Generator().manual_seed(seed))
    first, second = scenes.objects
    count = torch.tensor([0])
    wanted = first._replace(
        colour=count + COLOURS.index(words.colour),
        shape=count + SHAPES.index(words.shape),
        middle=torch.zeros(1, 2),
    )
    return scenes._replace(objects=(wanted, second._replace(shape=count - 1)))


def looks(scenes: clips.Scenes) -> np.ndarray:
    """A few frames of the first scene, ``[frames, height, width, 3]``."""
    times = torch.tensor([[0, 8, 16, 24, 32]])
    sizes = torch.arange(clips.HEIGHT)[None], torch.arange(clips.WIDTH)[None]
    return (clips.draw(scenes, times, *sizes)[0].permute(1, 2, 3, 0) / 2 + 0.5).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS[::2])
def test_what_a_clip_shows_can_be_read_off_it(colour: str, shape: str) -> None:
    scenes = scenes_of(Words(colour, shape), seed=len(colour) + len(shape))
    motion = words_of(scenes.word_numbers()[0].tolist()).motion
    noise = np.random.default_rng(0).normal(0, 0.03, (5, clips.HEIGHT, clips.WIDTH, 3))
    reading = read_clip(looks(scenes) + noise)
    assert reading is not None
    assert reading == (colour, shape, motion if motion in ("left", "right", "up", "down") else None)


@pytest.mark.parametrize(("motion", "right", "down"), [("left", -1, 0), ("right", 1, 0), ("up", 0, -1), ("down", 0, 1)])
def test_objects_go_where_they_are_said_to_go(motion: str, right: int, down: int) -> None:
    scenes = scenes_of(Words("red", "circle"))
    travel = torch.tensor([[0.4 * right, 0.4 * down]])
    red = scenes.objects[0]._replace(
        travel=travel,
        middle=torch.tensor([[0.1, -0.05]]),
        radius=torch.tensor([0.15]),
        angle=torch.zeros(1),
        turn=torch.zeros(1),
    )
    frames = looks(scenes._replace(objects=(red, scenes.objects[1])))
    reading = read_clip(frames)
    assert reading is not None
    assert reading.motion == motion
    for frame, time in ((0, -0.5), (2, 0.0), (4, 0.5)):
        rows, columns = np.nonzero((frames[frame, ..., 0] > 0.6) & (frames[frame, ..., 1] < 0.2))
        place = np.array([columns.mean() - clips.WIDTH / 2, rows.mean() - clips.HEIGHT / 2]) + 0.5
        wanted = np.array([0.1 + 0.4 * right * time, -0.05 + 0.4 * down * time]) * clips.HEIGHT
        assert np.hypot(*(place - wanted)) < 1


def test_nothing_is_read_off_a_background() -> None:
    scenes = scenes_of(Words("red", "circle"))
    empty = scenes.objects[1]
    assert read_clip(looks(scenes._replace(objects=(empty, empty)))) is None


def test_the_second_object_is_in_front() -> None:
    scenes = scenes_of(Words("red", "square"))
    blue = scenes.objects[0]._replace(colour=torch.tensor([COLOURS.index("blue")]))
    reading = read_clip(looks(scenes._replace(objects=(scenes.objects[0], blue))))
    assert reading is not None
    assert reading.colour == "blue"


def test_a_window_is_a_part_of_the_whole_clip() -> None:
    scenes = clips.random_scenes(2, torch.Generator().manual_seed(1))
    times, rows, columns = (torch.tensor([at, at]) for at in ([4, 5], list(range(90, 130)), list(range(33, 77))))
    window = clips.draw(scenes, times, rows, columns)
    whole = clips.draw(scenes, times, *(torch.arange(x).expand(2, -1) for x in (clips.HEIGHT, clips.WIDTH)))
    assert torch.allclose(window, whole[..., 90:130, 33:77], atol=1e-5)
    assert whole.min() >= -1
    assert whole.max() <= 1


def test_random_scenes_use_every_word() -> None:
    scenes = clips.random_scenes(600, torch.Generator().manual_seed(0))
    numbers = scenes.word_numbers()
    assert len(numbers.unique()) == sum(len(slot) for slot in SLOTS) + 3
    moving = scenes.objects[0].travel.abs().sum(1) > 0
    still = torch.tensor([MOTIONS.index(motion) for motion in ("still", "turning")])
    assert torch.equal(moving, ~torch.isin(scenes.objects[0].motion, still))
