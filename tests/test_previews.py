"""Pictures of masks and schedules: colours where levels and steps are, and nothing but Pillow."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from psa_core import previews
from psa_core.previews import DENSE, LEVEL_COLOURS, SPARSE, UNKNOWN, caption, draw_levels, draw_schedule

GRID = (4, 8, 16)


def levels_by_frame() -> torch.Tensor:
    """Frames are blocks of 128: every level somewhere."""
    return torch.tensor([[1, 2, 4, 8], [0, 1, 2, 4], [16, 0, 1, 2], [32, 16, 0, 1]], dtype=torch.uint8)


def plot(picture: object) -> np.ndarray:
    pixels = np.asarray(picture)
    side = previews._MAP_SIDE
    return pixels[previews._TOP : previews._TOP + side, previews._LEFT : previews._LEFT + side]


def test_every_level_has_its_colour_where_the_map_has_it() -> None:
    levels = levels_by_frame()
    pixels = plot(draw_levels(levels, GRID, 0, "title"))
    for row in range(4):
        for column in range(4):
            middle = pixels[(2 * row + 1) * len(pixels) // 8, (2 * column + 1) * len(pixels) // 8]
            assert tuple(middle) == LEVEL_COLOURS[int(levels[row, column])]


def test_query_and_key_blocks_may_differ_in_size() -> None:
    levels = torch.zeros(4, 16, dtype=torch.uint8)
    levels[:, 8:] = 1
    pixels = plot(draw_levels(levels, GRID, 0, "title", 128, 32))
    assert tuple(pixels[100, 200]) == LEVEL_COLOURS[0]
    assert tuple(pixels[100, -200]) == LEVEL_COLOURS[1]


def test_a_window_narrower_than_a_pixel_leaves_a_trace() -> None:
    levels = torch.eye(1021, dtype=torch.uint8).repeat_interleave(4, 1)
    pixels = plot(draw_levels(levels, (33, 45, 88), 0, "title", 128, 32))
    diagonal = pixels[np.arange(20, 520), np.arange(20, 520)].astype(int)
    assert (np.abs(diagonal - LEVEL_COLOURS[0]).sum(-1) > 60).all()


def test_the_caption_tells_the_density() -> None:
    assert caption(torch.tensor([[1, 2], [0, 4]], dtype=torch.uint8), "radial") == "radial, density 0.44"


@pytest.mark.parametrize("text", [0, 226])
@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 30, 52), (200, 2, 2), (13, 30, 45)])
def test_any_clip(grid: tuple[int, int, int], text: int) -> None:
    blocks = -(-(grid[0] * grid[1] * grid[2] + text) // 128)
    picture = draw_levels(torch.ones(blocks, blocks, dtype=torch.uint8), grid, text, "title")
    assert picture.size == draw_levels(levels_by_frame(), GRID, 0, "title").size


def test_bars_are_as_high_as_the_densities() -> None:
    densities = [1.0, 0.75, 0.25, None, 1.0]
    pixels = np.asarray(draw_schedule(densities, "title"))
    bottom, width = previews._TOP + previews._BARS_HEIGHT, previews._MAP_SIDE / 5
    for step, (density, colour) in enumerate(zip(densities, (DENSE, SPARSE, SPARSE, UNKNOWN, DENSE), strict=True)):
        column = pixels[previews._TOP : bottom, round(previews._LEFT + (step + 0.5) * width)]
        height = (column == colour).all(-1).sum()
        assert height == pytest.approx((0.5 if density is None else density) * previews._BARS_HEIGHT, abs=2)


@pytest.mark.parametrize("steps", [1, 2, 9, 50, 200])
def test_any_number_of_steps(steps: int) -> None:
    picture = draw_schedule([0.5] * steps, "title")
    assert (np.asarray(picture) == SPARSE).all(-1).sum() > 20_000
    assert picture.tobytes() == draw_schedule([0.5] * steps, "title").tobytes()


@pytest.mark.parametrize(("count", "stride"), [(1, 1), (10, 1), (11, 2), (21, 5), (100, 10), (101, 20), (4000, 500)])
def test_few_round_numbers_stand_at_an_axis(count: int, stride: int) -> None:
    ticks = previews._ticks(count)
    assert (ticks.start, ticks.step) == (0, stride)
    assert len(ticks) <= 10


def test_matplotlib_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; "
        "from psa_core.previews import draw_schedule; draw_schedule([1.0, None], 'x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
