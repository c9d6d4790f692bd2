"""A picture of a few words, for where there is nothing to draw; Pillow alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

# Pixels, and letters in a line.
_WIDTH, _MARGIN, _SIZE, _SPACING = 920, 28, 20, 8
_LETTERS = 84
_PAPER, _INK = (255, 255, 255), (34, 34, 34)


def note_picture(text: str) -> Image.Image:
    """Write a text, each of its lines wrapped, as wide as the pack's other pictures."""
    wrapped = "\n".join(textwrap.fill(line, _LETTERS) for line in text.splitlines())
    font = ImageFont.load_default(_SIZE)
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), wrapped, font, spacing=_SPACING)
    picture = Image.new("RGB", (_WIDTH, int(box[3]) + 2 * _MARGIN), _PAPER)
    ImageDraw.Draw(picture).multiline_text((_MARGIN, _MARGIN), wrapped, _INK, font, spacing=_SPACING)
    return picture


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in one, from top to bottom."""
    whole = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), _PAPER)
    top = 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height
    return whole
