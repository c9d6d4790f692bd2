"""What strangers write: values of any kind, texts that are nearly right, and documents with one thing wrong."""

from __future__ import annotations

import copy
from typing import Any

import hypothesis.strategies as st

# Of 4,300 digits on Python writes no integer, so that hypothesis could not show one.
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**4000, -(10**4000), 2**31, 2**63, 1e308, 5e-324, -0.0])
)
# Halves of letters among them, which UTF-8 has no way to write.
LETTERS = st.text(st.characters(codec=None), max_size=40)
NEARLY = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "25%",
        "%",
        "1e999%",
        "nan%",
        "inf",
        "0, 1, 38-39",
        "38-1",
        "0,15,30",
        "[[1]]",
        "[" * 5000,
        "1" * 5000,
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, LETTERS, NEARLY, st.binary(max_size=8), st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(LETTERS, NUMBERS, st.booleans()), inner, max_size=4)
    ),
    max_leaves=8,
)
_YAML = st.sampled_from(["&a ", "*a", "<<: *a", "!!bool ", "!!int ", "{", "[", ": ", "- ", "? "])


def places(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values in a document."""
    inner: Any = ()
    if isinstance(document, dict):
        inner = document.items()
    elif isinstance(document, list):
        inner = enumerate(document)
    return [above, *(place for key, value in inner for place in places(value, (*above, key)))]


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> Any:
    """The document with another value in one place, or with a key of another name."""
    result = copy.deepcopy(document)
    *way, last = draw(st.sampled_from(places(document)[1:]))
    holder = result
    for key in way:
        holder = holder[key]
    if isinstance(holder, dict) and draw(st.booleans()):
        holder[draw(st.one_of(LETTERS, NUMBERS))] = holder.pop(last)
    else:
        holder[last] = draw(VALUES)
    return result


@st.composite
def torn(draw: st.DrawFn, text: str) -> str:
    """The text with a few letters replaced by others, or by none."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 20)))
        text = text[:start] + draw(st.one_of(LETTERS, _YAML)) + text[end:]
    return text
