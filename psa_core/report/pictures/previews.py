"""Pictures of a mask and of a schedule before anything runs. Pillow alone: ComfyUI always has it, not matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from ...ops.levels.rules import density
from ...settings.sizes import Grid
from .card import (
    LEFT,
    PAPER,
    QUIET,
    SIDE,
    SWATCH,
    TEXT_SIZE,
    Colour,
    Tick,
    axis_names,
    card,
    legend_rows,
    number_ticks,
    swatch,
    text_mask,
    ticks_below,
    ticks_beside,
    write,
)

# Matplotlib's YlGnBu_r, as in heat_maps.py, but one colour a level, so that pictures compare.
LEVEL_COLOURS: dict[int, Colour] = {
    1: (19, 38, 111),
    2: (33, 102, 172),
    4: (53, 170, 195),
    8: (124, 204, 187),
    16: (187, 228, 181),
    32: (218, 240, 179),
    64: (238, 248, 179),
    128: (247, 252, 198),
    0: (242, 240, 234),
}
DENSE: Colour = (184, 184, 184)
SPARSE = LEVEL_COLOURS[2]
_HATCH: Colour = (222, 233, 245)
_LINES: Colour = (224, 224, 224)
_SHARES = (0, 0.25, 0.5, 0.75, 1)

# Pixels.
BARS, LEVELS_TOP, SCHEDULE_TOP = 168, 78, 62
_LEAST_TEXT_REGION, _WIDEST_BAR, _MID_HEIGHT = 3, 64, 0.5
# Shapes are drawn this many times as large, then averaged.
_FINE = 4


def draw_levels(
    levels: torch.Tensor, grid: Grid, text_length: int, title: str, block_m: int, block_n: int
) -> Image.Image:
    """A level map as a picture, square in tokens: query frames downwards, key frames to the right.

    Args:
        levels: uint8 ``[q_blocks, k_blocks]`` over tokens in raster order, text first.
        grid: (frames, height, width) in tokens.
        text_length: tokens in front of the video.
        title: stands on top, the density below it; shortened where it does not fit.
        block_m, block_n: tokens a query block and a key block.

    Returns:
        RGB, 628 pixels wide.

    Raises:
        ValueError: these tokens do not make that many blocks.
    """
    tokens = text_length + grid[0] * grid[1] * grid[2]
    if tuple(levels.shape) != (-(-tokens // block_m), -(-tokens // block_n)):
        raise ValueError(f"a level map of {list(levels.shape)} blocks does not fit {tokens} tokens")
    found = [level for level in LEVEL_COLOURS if (levels == level).any()]
    legend = legend_rows([(_level_name(level), swatch(LEVEL_COLOURS[level])) for level in found])
    picture = card(LEVELS_TOP, SIDE, title, legend)
    write(picture, (LEFT, 54), density_text(levels), (0, 0.5), QUIET)
    picture.paste(_map_picture(levels, tokens, block_m, block_n), (LEFT, LEVELS_TOP))
    # Around the map, not on it.
    edges = LEFT - 1, LEVELS_TOP - 1, LEFT + SIDE, LEVELS_TOP + SIDE
    ImageDraw.Draw(picture).rectangle(edges, outline=QUIET)
    ticks_below(picture, LEVELS_TOP + SIDE, _frame_ticks(grid, text_length, down=False))
    ticks_beside(picture, LEVELS_TOP, _frame_ticks(grid, text_length, down=True))
    axis_names(picture, LEVELS_TOP, SIDE, "key frame", "query frame")
    return picture


def draw_schedule(densities: Sequence[float | None], title: str) -> Image.Image:
    """The density of every denoising step as bars.

    Args:
        densities: one a step, in [0, 1]: 1.0 where the step is dense, None where only the preset knows.
        title: stands on top; shortened where it does not fit.

    Returns:
        RGB, 628 pixels wide.

    Raises:
        ValueError: no step.
    """
    if not densities:
        raise ValueError("a schedule without steps has no picture")
    looks = {
        "dense": swatch(DENSE),
        "sparse": swatch(SPARSE),
        "sparse, as the preset says": _hatch(SWATCH, SWATCH).reduce(_FINE),
    }
    found = {_step_name(share) for share in densities}
    picture = card(SCHEDULE_TOP, BARS, title, legend_rows([entry for entry in looks.items() if entry[0] in found]))
    picture.paste(_bars(densities), (LEFT, SCHEDULE_TOP))
    bottom, slot = SCHEDULE_TOP + BARS, SIDE / len(densities)
    ImageDraw.Draw(picture).line((LEFT, bottom, LEFT + SIDE - 1, bottom), fill=QUIET)
    ticks_below(picture, bottom, number_ticks(len(densities), slot))
    shares = [(BARS * (1 - share), f"{share:g}") for share in _SHARES]
    ticks_beside(picture, SCHEDULE_TOP, [Tick(place, place, label) for place, label in shares])
    axis_names(picture, SCHEDULE_TOP, BARS, "denoising step", "density")
    return picture


def density_text(levels: torch.Tensor) -> str:
    """What stands below the title of a level map ``[q_blocks, k_blocks]``."""
    return f"density {float(density(levels)):.2f}"


def _map_picture(levels: torch.Tensor, tokens: int, block_m: int, block_n: int) -> Image.Image:
    """Every pixel the mean of the colours under it, so that a window narrower than a pixel leaves a trace."""
    table = np.zeros((256, 3), np.uint8)
    table[list(LEVEL_COLOURS)] = list(LEVEL_COLOURS.values())
    blocks = Image.fromarray(table[levels.cpu().numpy()])
    # The last block may be ragged.
    box = (0, 0, tokens / block_n, tokens / block_m)
    # Enlarging, this filter takes the nearest.
    return blocks.resize((SIDE * _FINE, SIDE * _FINE), Image.Resampling.BOX, box).reduce(_FINE)


def _bars(densities: Sequence[float | None]) -> Image.Image:
    width, height, slot = SIDE * _FINE, BARS * _FINE, SIDE * _FINE / len(densities)
    plot = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(plot)
    for line in _SHARES[1:]:
        top = round((1 - line) * height)
        draw.rectangle((0, top, width, top + _FINE - 1), fill=_LINES)
    # One pattern behind all bars: it goes on where narrow bars touch.
    hatch = _hatch(SIDE, BARS)
    gap = 0.16 * slot if slot >= 5 * _FINE else 0.0
    bar = min(slot - gap, _WIDEST_BAR * _FINE)
    for step, share in enumerate(densities):
        left, right = (round((step + 0.5) * slot + side * bar / 2) for side in (-1, 1))
        top = round((1 - (_MID_HEIGHT if share is None else share)) * height)
        if share is None:
            plot.paste(hatch.crop((left, top, right, height)), (left, top))
        else:
            plot.paste(DENSE if share == 1.0 else SPARSE, (left, top, right, height))
    return plot.reduce(_FINE)


def _hatch(width: int, height: int) -> Image.Image:
    """Slanted lines over so many pixels, drawn large."""
    x, y = np.meshgrid(np.arange(width * _FINE), np.arange(height * _FINE))
    lines = (x + y) % (9 * _FINE) < 3 * _FINE
    colours = np.array([_HATCH, SPARSE], np.uint8)
    return Image.fromarray(colours[lines.astype(int)])


def _step_name(share: float | None) -> str:
    if share is None:
        return "sparse, as the preset says"
    return "dense" if share == 1.0 else "sparse"


def _level_name(level: int) -> str:
    return {0: "skipped", 1: "1 full"}.get(level, f"{level}x")


def _frame_ticks(grid: Grid, text_length: int, down: bool) -> list[Tick]:
    """Numbers at the middles of frames, and a label at the text where it is wide enough to be seen."""
    frame = grid[1] * grid[2]
    scale = SIDE / (text_length + grid[0] * frame)
    text = text_length * scale
    ticks = number_ticks(grid[0], frame * scale, text)
    if text < _LEAST_TEXT_REGION:
        return ticks
    gap, half = (2.0, 9.0) if down else (12.0, text_mask("text", TEXT_SIZE).width / 2)
    # A narrow region's label moves away from the first number, but stays beside its region.
    start = ticks[0].middle - _half(ticks[0], down)
    middle = max(min(text / 2, start - gap - half), min(text / 2, text - half))
    rest = [tick for tick in ticks if tick.middle - _half(tick, down) >= middle + half + gap]
    return [Tick(text / 2, middle, "text"), *rest]


def _half(tick: Tick, down: bool) -> float:
    """Half the length of a label along its axis."""
    return 9 if down else text_mask(tick.label, TEXT_SIZE).width / 2
