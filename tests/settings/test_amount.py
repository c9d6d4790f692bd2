"""Amounts of steps: numbers and shares are read, written and counted the same wherever a setting takes them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml

from psa_core import ConfigError, PSAConfig
from psa_core.settings.amount import read_amount, steps_of
from psa_core.settings.validation import plain

from ..support.strategies import amounts

step_counts = st.integers(1, 1000)


class TestReading:
    @pytest.mark.parametrize(
        ("value", "amount"),
        [(15, 15), ("15", 15), (" 15 ", 15), (0, 0), ("25%", "25%"), (" 25 % ", "25%"), ("12.5%", "12.5%"),
         ("12.50%", "12.5%"), ("100%", "100%"), ("0%", 0), ("0.0%", 0), ("-0%", 0), ("25\uff05", "25%"),
         ("\uff12\uff15%", "25%"), ("66.66666%", "66.66666%")],
    )  # fmt: skip
    def test_numbers_and_shares(self, value: int | str, amount: int | str) -> None:
        assert read_amount("warmup_steps", value) == amount

    @pytest.mark.parametrize(
        "value",
        [-1, 1.0, 0.25, True, None, [], "", " ", "%", "-3", "-3%", "101%", "100.001%", "nan%", "inf%", "half", "25%%",
         "1.5", "25 steps", "²", "9" * 5000],
    )  # fmt: skip
    def test_anything_else_is_refused_by_name(self, value: Any) -> None:
        with pytest.raises(ConfigError, match="number of steps such as 15, or a share of them such as 25%") as caught:
            read_amount("last_dense", value)
        assert (caught.value.key, caught.value.value) == ("last_dense", value)

    @hypothesis.given(amounts())
    def test_reading_again_changes_nothing(self, amount: int | str) -> None:
        held = read_amount("warmup", amount)
        assert read_amount("warmup", held) == held
        assert read_amount("warmup", str(held)) == held

    @hypothesis.given(amounts())
    def test_settings_and_files_hold_it(self, amount: int | str) -> None:
        config = PSAConfig(warmup_steps=amount)
        assert PSAConfig(**yaml.safe_load(yaml.safe_dump(plain(config)))) == config

    @hypothesis.given(st.text())
    def test_texts_are_read_or_refused(self, text: str) -> None:
        try:
            held = read_amount("warmup", text)
        except ConfigError:
            return
        assert isinstance(held, int | str)


class TestCounting:
    @pytest.mark.parametrize(
        ("amount", "steps", "count"),
        [(15, 20, 15), (15, 10, 15), ("0.01%", 50, 1), ("12.5%", 8, 1), ("12.5%", 20, 3), ("25%", 12, 3),
         ("30%", 20, 6), ("33.3%", 3, 1), ("66.66666%", 3, 2), ("100%", 7, 7)],
    )  # fmt: skip
    def test_shares_are_rounded_up(self, amount: int | str, steps: int, count: int) -> None:
        assert steps_of(amount, steps) == count

    @hypothesis.given(st.integers(0, 10_000), step_counts)
    def test_as_exact_fractions_count(self, hundredths: int, steps: int) -> None:
        amount = read_amount("warmup", f"{hundredths / 100}%")
        assert steps_of(amount, steps) == math.ceil(Fraction(hundredths, 10_000) * steps)

    @hypothesis.given(st.floats(0, 100).map("{}%".format), step_counts)
    def test_a_share_is_part_of_the_steps(self, share: str, steps: int) -> None:
        assert 0 <= steps_of(read_amount("warmup", share), steps) <= steps

    @hypothesis.given(st.integers(0, 2000), step_counts)
    def test_a_number_is_itself_of_any_steps(self, number: int, steps: int) -> None:
        assert steps_of(number, steps) == steps_of(number, None) == number
