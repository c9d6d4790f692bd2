"""Locale files: every node in every language, in a form that ComfyUI's front end can show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ..comfyui.pack_texts import CHINESE, LANGUAGES, ROOT, locale, node_ids

# The front end compiles some texts as messages, in which these stand for something else.
RESERVED = re.compile(r"[@{}|]")
# Settings, numbers and the options that a list explains: a translation says the same ones.
FACTS = re.compile(r"[a-z]+(?:_[a-z0-9]+)+|[A-Za-z]*\d[\d.]*\d|\d|(?<![a-z] )\b[a-z]+(?=:)")


def texts_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield path, value
    else:
        for key, inner in value.items():
            yield from texts_of(inner, (*path, key))


def test_folders_are_the_languages() -> None:
    assert sorted(folder.name for folder in (ROOT / "locales").iterdir()) == list(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_is_there_and_no_other(language: str) -> None:
    assert sorted(locale(language)) == sorted(node_ids())


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_can_be_shown_as_they_are(language: str) -> None:
    for path, text in texts_of(locale(language)):
        assert text.strip() == text != "", path
        assert not RESERVED.search(text), (path, text)
        # The front end looks dots up as underscores.
        assert not any("." in key for key in path), path


def test_chinese_has_what_english_has() -> None:
    english, chinese = dict(texts_of(locale("en"))), dict(texts_of(locale("zh")))

    assert {path for path in chinese if path[-1] != "name"} == set(english)
    for path, text in chinese.items():
        assert CHINESE.search(text), path


def test_chinese_has_the_settings_and_numbers_of_english() -> None:
    english, chinese = dict(texts_of(locale("en"))), dict(texts_of(locale("zh")))

    for path, text in english.items():
        assert not [fact for fact in FACTS.findall(text) if fact not in chinese[path]], path


def test_a_chinese_label_begins_with_the_name_that_presets_and_graphs_use() -> None:
    for node, texts in locale("zh").items():
        for key, text in texts.get("inputs", {}).items():
            name, _, label = text["name"].partition(" ")
            assert name == key, node
            assert CHINESE.search(label), (node, key)
