"""A picture of how fast attention is on a GPU: a bar for each, and lines of text. Drawn with Pillow alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _QUIET = "#ffffff", "#222222", "#606060"
_OURS, _DENSE = "#2166ac", "#b8b8b8"

# Pixels, and letters in a line and in one beside a name.
_WIDTH, _MARGIN, _NAMES, _NUMBERS, _FACTS = 920, 24, 300, 150, 190
_ROW, _BAR, _LINE, _GAP = 34, 20, 22, 14
_SIZE, _SMALL, _TITLE = 18, 15, 20
_LETTERS, _LETTERS_BESIDE = 108, 84


class Bar(NamedTuple):
    """One attention: its name, milliseconds a call, what stands behind the bar, and whether it is the pack's."""

    name: str
    ms: float
    text: str
    ours: bool


def speed_picture(
    title: str, caption: str, bars: Sequence[Bar], notes: Sequence[str], facts: Sequence[tuple[str, str]]
) -> Image.Image:
    """Draw bars over lines of text; shorter is faster.

    Args:
        title: the GPU's name.
        caption: what was measured, or why nothing was.
        bars: in the order to draw.
        notes: lines below them.
        facts: names and what was found of them, in two columns below that.

    Returns:
        RGB, 920 pixels wide.
    """
    above = textwrap.wrap(caption, _LETTERS)
    below = [("", line) for note in notes for line in textwrap.wrap(note, _LETTERS, subsequent_indent="  ")]
    columns = [
        (name if i == 0 else "", line)
        for name, found in facts
        for i, line in enumerate(textwrap.wrap(found, _LETTERS_BESIDE) or [""])
    ]
    bars_top = 58 + _LINE * len(above) + _GAP
    notes_top = bars_top + _ROW * len(bars) + _GAP * bool(bars)
    facts_top = notes_top + _LINE * len(below) + _GAP * bool(below)
    picture = Image.new("RGB", (_WIDTH, facts_top + _LINE * len(columns) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(picture)
    _write(draw, _MARGIN, 30, _fitting(title, _WIDTH - 2 * _MARGIN, _TITLE), _INK, _TITLE)
    _write_lines(draw, 58, [("", line) for line in above], _MARGIN, _INK)
    slowest = max((bar.ms for bar in bars), default=1.0)
    for i, bar in enumerate(bars):
        _draw_bar(draw, bar, bars_top + _ROW * i + _ROW // 2, slowest)
    _write_lines(draw, notes_top, below, _MARGIN, _QUIET)
    _write_lines(draw, facts_top, columns, _FACTS, _QUIET)
    return picture


def _write_lines(draw: Any, top: int, lines: Sequence[tuple[str, str]], left: int, colour: str) -> None:
    """Names at the margin, and what was found of them at ``left``."""
    for i, texts in enumerate(lines):
        for x, text in zip((_MARGIN, left), texts, strict=True):
            _write(draw, x, top + _LINE * i, text, colour, _SMALL)


def _draw_bar(draw: Any, bar: Bar, middle: int, slowest: float) -> None:
    left = _MARGIN + _NAMES
    length = max(2, round((_WIDTH - _MARGIN - _NUMBERS - left) * bar.ms / slowest))
    name = _fitting(bar.name, _NAMES - 12, _SIZE)
    _write(draw, left - 12 - _length(name, _SIZE), middle, name, _INK, _SIZE)
    draw.rectangle((left, middle - _BAR // 2, left + length, middle + _BAR // 2), fill=_OURS if bar.ours else _DENSE)
    _write(draw, left + length + 8, middle, bar.text, _INK, _SIZE)


def _write(draw: Any, left: float, middle: float, text: str, colour: str, size: int) -> None:
    draw.text((left, middle - 0.6 * size), _known(text), colour, _font(size))


def _fitting(text: str, room: float, size: int) -> str:
    """A text, cut short where it is too long."""
    shown = text
    while _length(shown, size) > room:
        text = text[:-1]
        shown = f"{text}..."
    return shown


def _length(text: str, size: int) -> float:
    return float(_font(size).getlength(_known(text)))


def _known(text: str) -> str:
    """What the font has letters for."""
    return text.encode("latin-1", "replace").decode("latin-1")


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):
        # Pillow before 10.1 has one size, and so has one built without FreeType.
        return ImageFont.load_default()
