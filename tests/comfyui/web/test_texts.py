"""Texts of the pack's own parts of the front end: the same ones in every language, and those that are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ..browser import in_language
from ..level_bar import RENDERERS, caption, rendered, show
from ..pack_texts import CHINESE, LANGUAGES, ROOT
from .test_live_pictures import TEXTS as DRAWN
from .test_live_pictures import WIDGETS
from .test_live_pictures import show as show_picture

TEXTS = "async () => (await import('/extensions/psa/texts.js')).TEXTS"
# How a bar that counts for nothing says so: ComfyUI's languages that the pack lacks get English.
UNUSED = {"zh": ("未使用", "curve 为 preset"), "fr": ("not used", "curve is preset")}
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


@pytest.fixture(scope="module", params=UNUSED)
def speaking(request: pytest.FixtureRequest, page: Any) -> Iterator[tuple[Any, str]]:
    """The front end in a language, and the language."""
    with in_language(page, request.param):
        yield page, request.param


@pytest.mark.parametrize("renderer", RENDERERS)
def test_texts_are_in_the_language_that_comfyui_is_set_to(speaking: tuple[Any, str], renderer: str) -> None:
    page, language = speaking
    with rendered(page, renderer):
        show(page, "PSASparsitySchedule")
        _, shown = caption(page)
    name, value = UNUSED[language]
    assert shown.startswith(name)
    assert shown.endswith(value)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_pictures_speak_chinese_to_those_who_do(speaking: tuple[Any, str], renderer: str) -> None:
    page, language = speaking
    with rendered(page, renderer):
        drawn = [text for node_type in WIDGETS for text in show_picture(page, node_type).evaluate(DRAWN)]
    words = [text for text in drawn if not text.replace(".", "").removesuffix("x").isdigit()]
    assert len(words) > 5
    assert all((language == "zh") == bool(CHINESE.search(text)) for text in words), words
