"""Previews: colours where levels and steps are, readable texts, and nothing but Pillow."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image, ImageFont

from psa_core.report.pictures import card, previews
from psa_core.report.pictures.card import LEFT, SIDE
from psa_core.report.pictures.previews import (
    BARS,
    DENSE,
    LEVEL_COLOURS,
    LEVELS_TOP,
    SCHEDULE_TOP,
    SPARSE,
    density_text,
    draw_levels,
    draw_schedule,
)

Box = tuple[float, float, float, float]
CLIPS = [
    ((1, 1, 1), 0),
    ((1, 30, 52), 226),
    ((5, 8, 12), 40),
    ((13, 30, 45), 226),
    ((33, 45, 88), 226),
    ((101, 4, 4), 226),
    # The first number makes way for the text.
    ((101, 4, 4), 112),
    ((257, 30, 52), 512),
    ((1025, 4, 4), 0),
    ((2, 4, 4), 5000),
]


def colour_map(picture: Image.Image) -> np.ndarray:
    """The map's pixels, int ``[SIDE, SIDE, 3]``."""
    return np.asarray(picture)[LEVELS_TOP : LEVELS_TOP + SIDE, LEFT : LEFT + SIDE].astype(int)


def bars(picture: Image.Image) -> np.ndarray:
    """The bars' pixels, int ``[BARS, SIDE, 3]``."""
    return np.asarray(picture)[SCHEDULE_TOP : SCHEDULE_TOP + BARS, LEFT : LEFT + SIDE].astype(int)


def full_map(grid: tuple[int, int, int], text_length: int, block: int = 128) -> torch.Tensor:
    blocks = -(-(grid[0] * grid[1] * grid[2] + text_length) // block)
    return torch.ones(blocks, blocks, dtype=torch.uint8)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Box]]:
    """Every text that is written level, and its box."""
    texts: list[tuple[str, Box]] = []
    write = card.write

    def record(picture, place, text, anchor, colour, size=card.TEXT_SIZE):
        width, height = card.text_mask(text, size).size
        x, y = place[0] - anchor[0] * width, place[1] - anchor[1] * height
        texts.append((text, (x, y, x + width, y + height)))
        write(picture, place, text, anchor, colour, size)

    for module in (card, previews):
        monkeypatch.setattr(module, "write", record)
    return texts


def assert_readable(texts: list[tuple[str, Box]], picture: Image.Image) -> None:
    """No text leaves the picture, touches another, or is small."""
    for text, (left, top, right, bottom) in texts:
        # The name of the vertical axis ends at 32.
        assert 32 <= left < right <= picture.width, text
        assert 0 <= top < bottom <= picture.height, text
        assert bottom - top >= 15, text
    for (text, a), (other, b) in itertools.combinations(texts, 2):
        # Heights hold room for accents above the letters.
        apart = a[2] < b[0] or b[2] < a[0] or a[3] - 5 < b[1] or b[3] - 5 < a[1]
        assert apart, (text, other)


def test_every_level_has_its_colour_where_the_map_has_it() -> None:
    levels = torch.tensor([[1, 2, 4], [8, 16, 32], [64, 128, 0]], dtype=torch.uint8)
    pixels = colour_map(draw_levels(levels, (3, 8, 16), 0, "title", 128, 128))
    for row, column in itertools.product(range(3), range(3)):
        middle = pixels[(2 * row + 1) * SIDE // 6, (2 * column + 1) * SIDE // 6]
        assert tuple(middle) == LEVEL_COLOURS[int(levels[row, column])]


def test_fine_levels_are_darkest() -> None:
    brightness = [sum(colour) for level, colour in LEVEL_COLOURS.items() if level]
    assert brightness == sorted(brightness)
    assert len(set(LEVEL_COLOURS.values())) == 9


def test_the_map_is_square_in_tokens() -> None:
    # 3.5 query blocks and 14 key blocks of the same 448 tokens: the last query block is half as high.
    levels = torch.zeros(4, 14, dtype=torch.uint8)
    levels[3:] = 1
    levels[:, 7:] = 2
    levels[3, 7:] = 4
    pixels = colour_map(draw_levels(levels, (7, 8, 8), 0, "title", 128, 32))
    edge = SIDE * 6 // 7
    for row, column, level in ((edge - 4, 252, 0), (edge + 4, 252, 1), (edge - 4, 260, 2), (edge + 4, 260, 4)):
        assert tuple(pixels[row, column]) == LEVEL_COLOURS[level]


def test_queries_go_down_and_keys_to_the_right() -> None:
    levels = torch.zeros(4, 4, dtype=torch.uint8)
    levels[0, 3] = 1
    pixels = colour_map(draw_levels(levels, (4, 8, 16), 0, "title", 128, 128))
    assert tuple(pixels[10, -10]) == LEVEL_COLOURS[1]
    assert tuple(pixels[-10, 10]) == LEVEL_COLOURS[0]


def test_a_window_narrower_than_a_pixel_leaves_a_trace() -> None:
    # 130,680 tokens; a query block sees the four key blocks at its own place.
    levels = torch.eye(1021, dtype=torch.uint8).repeat_interleave(4, 1)
    pixels = colour_map(draw_levels(levels, (33, 45, 88), 0, "title", 128, 32))
    diagonal = pixels[np.arange(SIDE), np.arange(SIDE)]
    assert (np.abs(diagonal - LEVEL_COLOURS[0]).sum(-1) > 150).all()
    assert tuple(pixels[100, 400]) == LEVEL_COLOURS[0]


def test_pixels_average_what_is_under_them() -> None:
    # Columns of key blocks by turns: more of them than pixels.
    levels = torch.ones(1024, 4096, dtype=torch.uint8)
    levels[:, ::4] = 0
    pixels = colour_map(draw_levels(levels, (32, 64, 64), 0, "title", 128, 32))
    mean = np.array(LEVEL_COLOURS[0]) / 4 + np.array(LEVEL_COLOURS[1]) * 3 / 4
    assert np.abs(pixels - mean).max() < 3


def test_the_density_stands_below_the_title(written: list[tuple[str, Box]]) -> None:
    levels = torch.tensor([[1, 2], [0, 4]], dtype=torch.uint8)
    draw_levels(levels, (2, 8, 16), 0, "radial", 128, 128)
    assert density_text(levels) == "density 0.44"
    boxes = dict(written)
    assert boxes["density 0.44"][1] > boxes["radial"][1]
    assert boxes["density 0.44"][3] < LEVELS_TOP


def test_the_legend_names_what_occurs(written: list[tuple[str, Box]]) -> None:
    levels = torch.tensor([[1, 2], [0, 8]], dtype=torch.uint8)
    draw_levels(levels, (2, 8, 16), 0, "title", 128, 128)
    names = {"1 full", "2x", "4x", "8x", "16x", "skipped"}
    assert names & dict(written).keys() == {"1 full", "2x", "8x", "skipped"}
    written.clear()
    draw_schedule([1.0, None], "title")
    names = {"dense", "sparse", "sparse, as the preset says"}
    assert names & dict(written).keys() == {"dense", "sparse, as the preset says"}


@pytest.mark.parametrize(("grid", "text_length"), CLIPS)
def test_texts_of_a_map_can_be_read(
    grid: tuple[int, int, int], text_length: int, written: list[tuple[str, Box]]
) -> None:
    title = "intersect, CogVideoX, 1360 x 768, 1025 frames"
    picture = draw_levels(full_map(grid, text_length), grid, text_length, title, 128, 128)
    assert picture.mode == "RGB"
    assert picture.size == (628, 698)
    assert_readable(written, picture)
    assert len([text for text, _ in written if text.isdigit()]) >= 2
    tokens = text_length + grid[0] * grid[1] * grid[2]
    assert ("text" in dict(written)) == (text_length / tokens * SIDE >= 3)


def test_numbers_stand_at_the_middles_of_their_frames(written: list[tuple[str, Box]]) -> None:
    draw_levels(full_map((4, 10, 10), 400), (4, 10, 10), 400, "title", 128, 128)
    for frame in range(4):
        (_, beside), (_, below) = sorted((x for x in written if x[0] == str(frame)), key=lambda x: x[1][0])
        middle = SIDE * (400 + 100 * frame + 50) / 800
        across, down = (below[0] + below[2]) / 2 - LEFT, (beside[1] + beside[3]) / 2 - LEVELS_TOP
        assert (across, down) == pytest.approx((middle, middle))


def test_a_legend_too_wide_for_one_row_takes_two(written: list[tuple[str, Box]]) -> None:
    levels = torch.tensor([[1, 2, 4], [8, 16, 32], [64, 128, 0]], dtype=torch.uint8)
    picture = draw_levels(levels, (3, 8, 16), 0, "title", 128, 128)
    assert picture.size == (628, 728)
    assert_readable(written, picture)


def test_a_title_too_long_is_cut_short(written: list[tuple[str, Box]]) -> None:
    picture = draw_schedule([0.5], "much too long " * 20)
    assert [text for text, _ in written if text.startswith("much") and text.endswith("...")]
    assert_readable(written, picture)


def test_a_map_of_other_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[4, 5\] blocks does not fit 512 tokens"):
        draw_levels(torch.ones(4, 5, dtype=torch.uint8), (4, 8, 16), 0, "title", 128, 128)


def test_bars_are_where_their_steps_are_and_as_high_as_their_densities() -> None:
    densities = [1.0, 0.75, 0.25, 0.0, 1.0, 0.5]
    pixels = bars(draw_schedule(densities, "title"))
    for step, share in enumerate(densities):
        column = pixels[:, round((step + 0.5) * SIDE / 6)]
        filled = (column == (DENSE if share == 1.0 else SPARSE)).all(-1)
        assert filled.sum() == share * BARS
        assert filled[BARS - filled.sum() :].all()
    # Between two steps is paper.
    assert tuple(pixels[BARS - 5, round(SIDE / 6)]) == (255, 255, 255)


def test_a_step_of_which_the_preset_knows_is_hatched_and_of_middle_height() -> None:
    pixels = bars(draw_schedule([1.0, None, 0.5, 1.0], "title"))
    bar = pixels[:, round(1.5 * SIDE / 4) - 20 : round(1.5 * SIDE / 4) + 20]
    colours, counts = np.unique(bar[BARS // 2 :].reshape(-1, 3), axis=0, return_counts=True)
    share = dict(zip(map(tuple, colours.tolist()), counts / counts.sum(), strict=True))
    assert 0.15 < share[SPARSE] < 0.6
    assert share[previews._HATCH] > 0.3
    assert not (bar[: BARS // 2 - 1] == SPARSE).all(-1).any()
    # Neither of the others holds its pale colour.
    others = np.concatenate([pixels[:, : SIDE // 4], pixels[:, SIDE // 2 :]], 1)
    assert not (others == previews._HATCH).all(-1).any()


def test_lines_stand_at_quarters() -> None:
    pixels = bars(draw_schedule([0.0], "title"))
    lines = np.flatnonzero((pixels == previews._LINES).all((-1, 1)))
    assert lines.tolist() == [0, BARS // 4, BARS // 2, BARS * 3 // 4]


@pytest.mark.parametrize("steps", range(1, 201))
def test_any_number_of_steps(steps: int, written: list[tuple[str, Box]]) -> None:
    """A third of the steps dense, a third sparse, a third left to the preset."""
    densities = [(1.0, 0.5, None)[3 * step // steps] for step in range(steps)]
    picture = draw_schedule(densities, "title")
    assert picture.size == (628, 338)
    assert_readable(written, picture)
    pixels = bars(picture)
    for step in (0, steps // 2, steps - 1):
        colour = pixels[BARS - 3, int((step + 0.5) * SIDE / steps)]
        if densities[step] is None:
            assert tuple(colour) not in (DENSE, (255, 255, 255))
        else:
            assert tuple(colour) == (DENSE if densities[step] == 1.0 else SPARSE)


def test_a_schedule_needs_a_step() -> None:
    with pytest.raises(ValueError, match="without steps"):
        draw_schedule([], "title")


def test_the_same_picture_every_time() -> None:
    grid, text_length = CLIPS[3]
    levels = full_map(grid, text_length)
    first, second = (draw_levels(levels, grid, text_length, "title", 128, 128).tobytes() for _ in range(2))
    assert first == second
    assert draw_schedule([1.0, None, 0.3], "t").tobytes() == draw_schedule([1.0, None, 0.3], "t").tobytes()


def test_the_map_is_left_as_it_was() -> None:
    levels = torch.tensor([[1, 2], [0, 4]], dtype=torch.uint8)
    draw_levels(levels, (2, 8, 16), 0, "title", 128, 128)
    assert levels.tolist() == [[1, 2], [0, 4]]


def test_a_pillow_with_one_small_font_will_do(monkeypatch: pytest.MonkeyPatch, written: list[tuple[str, Box]]) -> None:
    def load_default() -> ImageFont.ImageFont:
        return ImageFont.load_default_imagefont()

    monkeypatch.setattr(ImageFont, "load_default", load_default)
    card._font.cache_clear()
    try:
        grid, text_length = CLIPS[3]
        title = "a character that this font lacks: \u2192"
        picture = draw_levels(full_map(grid, text_length), grid, text_length, title, 128, 128)
        assert_readable(written, picture)
        written.clear()
        assert_readable(written, draw_schedule([1.0, None, 0.5], "title"))
    finally:
        card._font.cache_clear()


def test_matplotlib_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; import torch; "
        "from psa_core.report.pictures.previews import draw_levels, draw_schedule; "
        "draw_schedule([1.0, 0.5, None], 'x'); "
        "draw_levels(torch.ones(4, 4, dtype=torch.uint8), (4, 8, 16), 0, 'x', 128, 128)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
