"""Texts of the pack's own parts of the front end: the same ones in every language, and those that are asked for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ..pack_texts import CHINESE, LANGUAGES, ROOT

TEXTS = "async () => (await import('/extensions/psa/texts.js')).TEXTS"
ASKED = re.compile(r'\btext\(\s*"([^"]+)"')


@pytest.fixture(scope="module")
def texts(page: Any) -> dict[str, dict[str, str]]:
    """Every text by language and name."""
    found: dict[str, dict[str, str]] = page.evaluate(TEXTS)
    return found


def test_languages_are_those_of_the_locale_files(texts: dict[str, dict[str, str]]) -> None:
    assert sorted(texts) == list(LANGUAGES)


def test_every_language_has_the_same_texts_with_the_same_words_to_fill_in(texts: dict[str, dict[str, str]]) -> None:
    def words(language: str) -> dict[str, list[str]]:
        return {name: sorted(re.findall(r"\{\w+\}", text)) for name, text in texts[language].items()}

    assert words("zh") == words("en")
    assert [name for name, text in texts["zh"].items() if not CHINESE.search(text)] == []


def test_every_text_is_asked_for_and_no_other(texts: dict[str, dict[str, str]]) -> None:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "web").glob("*.js")]

    assert {name for source in sources for name in ASKED.findall(source)} == set(texts["en"])
