"""A white card with a plot on it: title, axes and legend, drawn with Pillow alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (34, 34, 34)
QUIET: Colour = (96, 96, 96)
_EDGE: Colour = (153, 153, 153)

# Pixels. A node shows the picture at about half its size, so texts are large.
SIDE, LEFT, RIGHT = 512, 88, 28
TEXT_SIZE, SWATCH = 18, 18
_TITLE_SIZE, _LEAST_TITLE_SIZE = 20, 16
_BELOW, _ROW, _GAP = 66, 30, 22

Legend = list[list[tuple[str, Image.Image]]]


class Tick(NamedTuple):
    """Of an axis, in pixels from where its plot starts: the mark, the middle of the label, the label."""

    mark: float
    middle: float
    label: str


def number_ticks(count: int, slot: float, start: float = 0.0) -> list[Tick]:
    """Numbers from 0 on at the middles of slots, in round strides that leave room between them.

    Args:
        count: how many slots.
        slot: pixels a slot.
        start: where the first begins.
    """
    room = text_mask(str(count - 1), TEXT_SIZE).width + _GAP
    strides = (base * 10**power for power in itertools.count() for base in (1, 2, 5))
    stride = next(stride for stride in strides if stride * slot >= room)
    middles = {number: start + (number + 0.5) * slot for number in range(0, count, stride)}
    return [Tick(middle, middle, str(number)) for number, middle in middles.items()]


def ticks_below(picture: Image.Image, bottom: int, ticks: Sequence[Tick]) -> None:
    """Marks and labels below a plot that ends at ``bottom``."""
    draw = ImageDraw.Draw(picture)
    for tick in ticks:
        x = round(LEFT + tick.mark)
        draw.line((x, bottom + 1, x, bottom + 5), fill=QUIET)
        write(picture, (LEFT + tick.middle, bottom + 18), tick.label, (0.5, 0.5), INK)


def ticks_beside(picture: Image.Image, top: int, ticks: Sequence[Tick]) -> None:
    """Marks and labels on the left of a plot that starts at ``top``."""
    draw = ImageDraw.Draw(picture)
    for tick in ticks:
        y = round(top + tick.mark)
        draw.line((LEFT - 6, y, LEFT - 2, y), fill=QUIET)
        write(picture, (LEFT - 11, top + tick.middle), tick.label, (1, 0.5), INK)


def axis_names(picture: Image.Image, top: int, height: int, below: str, beside: str) -> None:
    """The names of both axes; the one beside reads upwards."""
    write(picture, (LEFT + SIDE / 2, top + height + 44), below, (0.5, 0.5), QUIET)
    upright = text_mask(beside, TEXT_SIZE).transpose(Image.Transpose.ROTATE_90)
    picture.paste(QUIET, (20 - upright.width // 2, top + (height - upright.height) // 2), upright)


def card(top: int, height: int, title: str, legend: Legend) -> Image.Image:
    """White paper with the title, room for a plot of this height and the legend below it."""
    size = LEFT + SIDE + RIGHT, top + height + _BELOW + _ROW * len(legend) + 12
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    _write_title(picture, title)
    for row, entries in enumerate(legend):
        y = top + height + _BELOW + _ROW * row + _ROW // 2
        x = round(LEFT + (SIDE - sum(_entry_width(name) for name, _ in entries) + _GAP) / 2)
        for name, swatch in entries:
            top_left = x, y - SWATCH // 2
            picture.paste(swatch, top_left)
            # So that pale colours end somewhere.
            draw.rectangle((*top_left, x + SWATCH - 1, y + SWATCH // 2 - 1), outline=_EDGE)
            write(picture, (x + SWATCH + 7, y), name, (0, 0.5), INK)
            x += _entry_width(name)
    return picture


def legend_rows(entries: Sequence[tuple[str, Image.Image]]) -> Legend:
    """Rows that fit below a plot."""
    rows: Legend = [[]]
    for entry in entries:
        if sum(_entry_width(name) for name, _ in [*rows[-1], entry]) > SIDE + _GAP:
            rows.append([])
        rows[-1].append(entry)
    return rows


def _entry_width(name: str) -> int:
    return SWATCH + 7 + text_mask(name, TEXT_SIZE).width + _GAP


def swatch(colour: Colour) -> Image.Image:
    """A legend's patch of colour."""
    return Image.new("RGB", (SWATCH, SWATCH), colour)


def _write_title(picture: Image.Image, title: str) -> None:
    """On one line, smaller or cut short where it is too long."""
    room = picture.width - LEFT - 12
    size = fitting_size(title, room, _TITLE_SIZE, _LEAST_TITLE_SIZE)
    text = title
    while text_mask(text, size).width > room:
        title = title[:-1]
        text = title.rstrip(" ,") + "..."
    write(picture, (LEFT, 28), text, (0, 0.5), INK, size)


def fitting_size(text: str, room: float, most: int, least: int) -> int:
    """The largest size at which a text is no wider than ``room`` pixels; ``least`` where none is."""
    return next((size for size in range(most, least, -1) if text_mask(text, size).width <= room), least)


def write(
    picture: Image.Image,
    place: tuple[float, float],
    text: str,
    anchor: tuple[float, float],
    colour: Colour,
    size: int = TEXT_SIZE,
) -> None:
    """Write with the point at ``anchor``, a share of the text's width and height, at ``place``."""
    mask = text_mask(text, size)
    x, y = (round(at - share * length) for at, share, length in zip(place, anchor, mask.size, strict=True))
    picture.paste(colour, (x, y), mask)


def text_mask(text: str, size: int) -> Image.Image:
    """A text as ink, 0 to 255, its digits in the middle of the height."""
    font = _font(size)
    if isinstance(font, ImageFont.ImageFont):
        return _bitmap_mask(text, size, font)
    _, top, _, baseline = font.getbbox("0")
    below = font.getbbox("g")[3] - baseline
    left, _, right, _ = font.getbbox(text)
    mask = Image.new("L", (max(1, round(right - left)), round(baseline - top + 2 * below)))
    ImageDraw.Draw(mask).text((-left, below - top), text, fill=255, font=font)
    return mask


def _bitmap_mask(text: str, size: int, font: ImageFont.ImageFont) -> Image.Image:
    """The same by the one small font of an old Pillow, enlarged. It knows Latin-1 alone."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    _, _, width, height = font.getbbox(text)
    mask = Image.new("L", (max(1, int(width)), int(height)))
    ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=font)
    return mask.resize((round(mask.width * size / 11), round(mask.height * size / 11)), Image.Resampling.BICUBIC)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size=size)
    except (TypeError, ImportError):
        # Pillow before 10.1 has one size, and so has one built without FreeType.
        return ImageFont.load_default()
