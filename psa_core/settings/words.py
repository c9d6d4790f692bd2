"""Values as a message for people shows them: a line at most, whatever they are."""

from __future__ import annotations

import math
import reprlib
from itertools import islice
from typing import Any

_LINE = 160
_DOTS = "..."
# Decimal digits a bit, and integers that Python still writes out (it refuses those of 4,300 digits).
_DIGITS_A_BIT, _LONGEST_INTEGER = 0.30103, 200


class _Short(reprlib.Repr):
    """Python's ``repr`` of the first few items of a container, the first levels of what is nested, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxtuple = self.maxlist = self.maxarray = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxstring = self.maxother = _LINE

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > _LONGEST_INTEGER:
            return f"<an integer of {int(x.bit_length() * _DIGITS_A_BIT):,} digits>"
        return repr(x)

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}" if x else "{}"
        items = [f"{self.repr1(k, level - 1)}: {self.repr1(v, level - 1)}" for k, v in islice(x.items(), self.maxdict)]
        return "{" + ", ".join([*items, *([_DOTS] if len(x) > self.maxdict else [])]) + "}"


_SHORT = _Short()


def shown(value: Any) -> str:
    """A value as Python writes it, cut to a line; what does not fit is not even written."""
    return cut(_SHORT.repr(value), _LINE)


def cut(text: str, length: int) -> str:
    """:func:`one_line` of a text's first ``length`` characters at most, with dots for what is left out."""
    return one_line(text if len(text) <= length else text[: length - len(_DOTS)] + _DOTS)


def percent(share: float) -> str:
    """A measured share in percent, with two digits below 10 % and no decimals above."""
    if not math.isfinite(share):
        return "not a number"
    number = 100 * share
    if 0 < number < 0.01:
        return "below 0.01 %"
    return f"{number:,.0f} %" if number >= 10 else f"{number:.2g} %"


def one_line(text: str) -> str:
    """A text with what would end its line, or steer a terminal, escaped as in Python, and so are halves of letters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
