"""A picture of how fast attention is on a GPU: a bar for each, and lines of text. Drawn with Pillow alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from .card import INK, PAPER, QUIET, Colour, fitting_size, text_mask, write

_OURS: Colour = (33, 102, 172)
_DENSE: Colour = (184, 184, 184)

# Pixels, and letters in a line of text.
_WIDTH, _MARGIN, _NAMES, _NUMBERS = 920, 24, 300, 150
_ROW, _BAR, _LINE = 34, 20, 22
_SIZE, _SMALL, _TITLE = 18, 15, 20
_LETTERS = 112


class Bar(NamedTuple):
    """One attention: its name, milliseconds a call, what stands behind the bar, and whether it is the pack's."""

    name: str
    ms: float
    text: str
    ours: bool


def speed_picture(title: str, caption: str, bars: Sequence[Bar], lines: Sequence[str]) -> Image.Image:
    """Draw bars over lines of text; shorter is faster.

    Args:
        title: the card's name.
        caption: what was measured, or why nothing was.
        bars: in the order to draw.
        lines: what stands below, wrapped where too long.

    Returns:
        RGB, 920 pixels wide.
    """
    above = textwrap.wrap(caption, _LETTERS)
    below = [piece for line in lines for piece in textwrap.wrap(line, _LETTERS, subsequent_indent="    ") or [""]]
    bars_top = 58 + _LINE * len(above) + 14
    lines_top = bars_top + _ROW * len(bars) + (14 if bars else 0)
    picture = Image.new("RGB", (_WIDTH, lines_top + _LINE * len(below) + _MARGIN), PAPER)
    size = fitting_size(title, _WIDTH - 2 * _MARGIN, _TITLE, _SMALL)
    write(picture, (_MARGIN, 30), title, (0, 0.5), INK, size)
    for i, line in enumerate(above):
        write(picture, (_MARGIN, 58 + _LINE * i), line, (0, 0.5), INK, _SMALL)
    slowest = max((bar.ms for bar in bars), default=1.0)
    for i, bar in enumerate(bars):
        _draw_bar(picture, bar, bars_top + _ROW * i + _ROW // 2, slowest)
    for i, line in enumerate(below):
        if line:
            indent = len(line) - len(line.lstrip())
            place = _MARGIN + 6 * indent, lines_top + _LINE * i + _LINE // 2
            write(picture, place, line.strip(), (0, 0.5), QUIET, _SMALL)
    return picture


def _draw_bar(picture: Image.Image, bar: Bar, middle: int, slowest: float) -> None:
    left = _MARGIN + _NAMES
    length = max(2, round((_WIDTH - _MARGIN - _NUMBERS - left) * bar.ms / slowest))
    name = bar.name
    while text_mask(name, _SIZE).width > _NAMES - 12:
        name = f"{name[:-4]}..."
    write(picture, (left - 12, middle), name, (1, 0.5), INK, _SIZE)
    box = left, middle - _BAR // 2, left + length, middle + _BAR // 2
    ImageDraw.Draw(picture).rectangle(box, fill=_OURS if bar.ours else _DENSE)
    write(picture, (left + length + 8, middle), bar.text, (0, 0.5), INK, _SIZE)
