"""The doctor's picture: bars as long as calls take, and everything on it."""

from __future__ import annotations

import numpy as np

from psa_core.report.pictures.speed import Bar, speed_picture

BLUE = (33, 102, 172)
GREY = (184, 184, 184)
FACTS = [("psa", "0.1.0"), ("", "more of it")]


def longest(colour: tuple[int, int, int], *bars: Bar) -> int:
    """Pixels of this colour in the line of a picture that has most; letters have a few of any grey."""
    picture = np.asarray(speed_picture("A card", "what", bars, [], FACTS))
    return int((picture == colour).all(-1).sum(1).max())


def test_bars_are_as_long_as_calls_take_and_ours_has_a_colour_of_its_own() -> None:
    bars = Bar("dense", 40.0, "40.00 ms", False), Bar("PSA", 10.0, "10.00 ms, 4.00x", True)

    dense, ours = longest(GREY, *bars), longest(BLUE, *bars)

    assert abs(dense - 4 * ours) <= 4
    assert dense > 300


def test_without_bars_it_is_text_alone() -> None:
    picture = speed_picture("A card", "Not measured: no GPU", [], [], FACTS)

    assert picture.size[0] == 920
    assert longest(GREY) < 20
    assert longest(BLUE) == 0
    assert (np.asarray(picture) < 100).any()


def test_what_is_long_is_wrapped_or_shortened_within_the_picture() -> None:
    long = "a very long word or two, " * 12
    bar = Bar(long, 1.0, "1.00 ms, 1.00x", False)
    short, tall = (speed_picture(text, text, [bar], [text], [("name", text)]) for text in ("short", long))

    assert tall.size[0] == short.size[0]
    assert tall.size[1] > short.size[1] + 100
    # The right margin stays white, below a title that has the whole width.
    assert (np.asarray(tall)[50:, -8:] == 255).all()
