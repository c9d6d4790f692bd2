"""Pictures of a mask and of a schedule before anything runs. Pillow alone, which ComfyUI always has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .levels import density
from .sizes import Grid

# From dark to pale, as matplotlib's YlGnBu_r.
LEVEL_COLOURS = {
    1: (8, 29, 88),
    2: (34, 94, 168),
    4: (65, 182, 196),
    8: (161, 218, 180),
    16: (199, 233, 180),
    32: (220, 240, 185),
    64: (237, 248, 190),
    128: (250, 253, 214),
    0: (242, 240, 234),
}
DENSE, SPARSE, UNKNOWN = (188, 188, 188), LEVEL_COLOURS[2], (159, 190, 220)
_PAPER, _INK, _FAINT = (255, 255, 255), (34, 34, 34), (222, 222, 222)
_WIDTH, _LEFT, _RIGHT, _TOP, _TEXT_SIZE = 640, 76, 24, 48, 17
_MAP_SIDE = _WIDTH - _LEFT - _RIGHT
_BARS_HEIGHT = 200
_MOST_TICKS = 10


def draw_levels(
    levels: torch.Tensor, grid: Grid, text_length: int, title: str, block_m: int = 128, block_n: int = 128
) -> Image.Image:
    """A level map as a square picture: query frames downwards, key frames to the right, colours by level.

    Args:
        levels: uint8 ``[q_blocks, k_blocks]`` over tokens in raster order, text first.
        grid: (frames, height, width) in tokens.
        text_length: tokens in front of the video.
        title: stands on top, with the density behind it.
        block_m, block_n: tokens a query block and a key block.
    """
    found = sorted({int(level) for level in levels.unique()} - {0}) + [0] * bool((levels == 0).any())
    picture, draw = _paper(_TOP + _MAP_SIDE + 88, caption(levels, title))
    pixels = np.zeros((*levels.shape, 3), np.uint8)
    for level in found:
        pixels[levels.cpu().numpy() == level] = LEVEL_COLOURS[level]
    # Averages, so that a window narrower than a pixel leaves a trace.
    shape = _MAP_SIDE, _MAP_SIDE
    picture.paste(Image.fromarray(pixels).resize(shape, Image.Resampling.BOX), (_LEFT, _TOP))
    draw.rectangle((_LEFT, _TOP, _LEFT + _MAP_SIDE, _TOP + _MAP_SIDE), outline=_INK)
    tokens, frame = text_length + grid[0] * grid[1] * grid[2], grid[1] * grid[2]
    for down, blocks, size in ((True, levels.shape[0], block_m), (False, levels.shape[1], block_n)):
        # The last block may be ragged, and is drawn as wide as the others.
        scale = _MAP_SIDE / max(tokens, blocks * size)
        for number in _ticks(grid[0]):
            _tick(draw, (text_length + (number + 0.5) * frame) * scale, str(number), down)
    _axis_names(picture, draw, "key frame", "query frame", _MAP_SIDE)
    _legend(draw, picture.height - 32, ((_name(level), LEVEL_COLOURS[level]) for level in found))
    return picture


def caption(levels: torch.Tensor, title: str) -> str:
    """The text above a level map."""
    return f"{title}, density {float(density(levels)):.2f}"


def draw_schedule(densities: Sequence[float | None], title: str) -> Image.Image:
    """The density of every step as bars.

    Args:
        densities: 1 for dense steps, None for those of which only the preset knows.
        title: stands on top.
    """
    picture, draw = _paper(_TOP + _BARS_HEIGHT + 88, title)
    bottom = _TOP + _BARS_HEIGHT
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - share * _BARS_HEIGHT
        draw.line((_LEFT, y, _WIDTH - _RIGHT, y), fill=_FAINT)
        draw.text((_LEFT - 8, y), f"{share:g}", fill=_INK, font=_font(), anchor="rm")
    step_width = _MAP_SIDE / len(densities)
    gap = 1 if step_width > 4 else 0
    for step, share in enumerate(densities):
        left, right = _LEFT + step * step_width, _LEFT + (step + 1) * step_width - gap
        top = bottom - (0.5 if share is None else share) * _BARS_HEIGHT
        draw.rectangle((round(left), round(top), max(round(left), round(right) - 1), bottom), fill=_bar_colour(share))
    for step in _ticks(len(densities)):
        draw.text((_LEFT + (step + 0.5) * step_width, bottom + 6), str(step), fill=_INK, font=_font(), anchor="mt")
    _axis_names(picture, draw, "denoising step", "density", _BARS_HEIGHT)
    names = {DENSE: "dense", SPARSE: "sparse", UNKNOWN: "sparse, as the preset says"}
    used = dict.fromkeys(_bar_colour(share) for share in densities)
    _legend(draw, picture.height - 32, ((names[colour], colour) for colour in used))
    return picture


def _bar_colour(share: float | None) -> tuple[int, int, int]:
    if share is None:
        return UNKNOWN
    return DENSE if share == 1.0 else SPARSE


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size=_TEXT_SIZE)
    except TypeError:
        # Pillow before 10.1 has one size.
        return ImageFont.load_default()


def _paper(height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_WIDTH / 2, _TOP / 2), title, fill=_INK, font=_font(), anchor="mm")
    return picture, draw


def _ticks(count: int) -> range:
    """Numbers from 0 on in round strides, few enough to be read."""
    strides = (base * 10**power for power in range(6) for base in (1, 2, 5))
    return range(0, count, next(stride for stride in strides if stride * _MOST_TICKS >= count))


def _tick(draw: ImageDraw.ImageDraw, place: float, text: str, down: bool) -> None:
    if down:
        draw.line((_LEFT - 5, _TOP + place, _LEFT, _TOP + place), fill=_INK)
        draw.text((_LEFT - 9, _TOP + place), text, fill=_INK, font=_font(), anchor="rm")
    else:
        bottom = _TOP + _MAP_SIDE
        draw.line((_LEFT + place, bottom, _LEFT + place, bottom + 5), fill=_INK)
        draw.text((_LEFT + place, bottom + 8), text, fill=_INK, font=_font(), anchor="mt")


def _axis_names(picture: Image.Image, draw: ImageDraw.ImageDraw, below: str, beside: str, height: int) -> None:
    draw.text((_LEFT + _MAP_SIDE / 2, _TOP + height + 28), below, fill=_INK, font=_font(), anchor="mt")
    upright = Image.new("RGB", (height, 24), _PAPER)
    ImageDraw.Draw(upright).text((height / 2, 12), beside, fill=_INK, font=_font(), anchor="mm")
    picture.paste(upright.rotate(90, expand=True), (4, _TOP))


def _legend(draw: ImageDraw.ImageDraw, top: int, entries: Iterable[tuple[str, tuple[int, int, int]]]) -> None:
    x = float(_LEFT)
    for name, colour in entries:
        draw.rectangle((x, top, x + 16, top + 16), fill=colour, outline=_INK)
        draw.text((x + 24, top + 8), name, fill=_INK, font=_font(), anchor="lm")
        x += 24 + draw.textlength(name, font=_font()) + 22


def _name(level: int) -> str:
    return {0: "skipped", 1: "full resolution"}.get(level, f"{level}x pooled")
