"""Values in messages: a line at most, at little cost."""

from __future__ import annotations

import pytest
import yaml

from psa_core.settings.errors import ConfigError
from psa_core.settings.words import cut, shown

from ..support.little_work import little_work

ALIASES = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{last}'] * 9)}]\n" for last, this in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        list(range(10_000_000)),
        10**5000,
        {i: [i] * 1000 for i in range(1000)},
        "\ud800" * 1000,
        b"1" * 10**6,
    ],
    ids=["text", "list", "integer", "dictionary", "halves of letters", "bytes"],
)
def test_what_a_stranger_wrote_takes_a_line(value: object) -> None:
    with little_work():
        error = ConfigError("key", value, "must be less")

    assert len(str(error)) < 200
    str(error).encode()
    assert error.at("file").value is value


def test_aliases_that_multiply_are_not_written_out() -> None:
    with little_work():
        text = shown(yaml.safe_load(ALIASES))

    assert len(text) <= 160


@pytest.mark.parametrize("value", [None, 1.5, "a", [1, "b"], (0.0, 1.0), {2: (0, 1), 1: "x"}, {"a"}, -(10**40)])
def test_what_fits_reads_as_python_writes_it(value: object) -> None:
    assert shown(value) == repr(value)


def test_keys_and_sources_are_cut_as_well() -> None:
    error = ConfigError("k" * 10_000, 1, "a" * 10_000, "s" * 10_000)

    assert len(str(error)) < 2000
    assert cut("abcdef", 5) == "ab..."


def test_what_would_end_the_line_is_escaped() -> None:
    assert str(ConfigError("a\nb", "c\nd", "must be less", "x\r\x1b[2J.yaml")) == (
        r"x\r\x1b[2J.yaml: a\nb = 'c\nd': must be less"
    )
