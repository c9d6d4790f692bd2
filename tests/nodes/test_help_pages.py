"""Help pages: one a node and language, of one form, which quote errors and name nodes as they are."""

from __future__ import annotations

import re
from typing import Any

import pytest

from psa_core.settings.dial import QUALITIES, preset_of
from psa_core.settings.presets import load_preset

from ..comfyui.pack_texts import (
    CHINESE,
    LANGUAGES,
    PAGES,
    ROOT,
    code,
    headings,
    help_page,
    locale,
    node_ids,
    page_path,
    tables,
)

ERRORS = ("Errors", "Messages", "错误", "消息")
LONGEST = 60
EACH_PAGE = pytest.mark.parametrize("language", LANGUAGES)
EACH_NODE = pytest.mark.parametrize("node", node_ids())


def sources() -> str:
    """All that could raise or show a message."""
    files = [*(ROOT / "nodes").glob("*.py"), *(ROOT / "psa_core").rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_every_node_has_its_pages_and_no_other_lies_there() -> None:
    wanted = {page_path(node, language) for node in node_ids() for language in LANGUAGES}

    assert set(PAGES.rglob("*.md")) == wanted


@EACH_PAGE
@EACH_NODE
def test_a_page_begins_with_the_node_s_name_and_its_picture(node: str, language: str) -> None:
    page = help_page(node, language)
    title, _, picture, *_ = page.splitlines()

    assert title.removeprefix("# ").startswith(locale(language)[node]["display_name"])
    assert re.fullmatch(rf"!\[.+\]\(pictures/{node}\.jpg\)", picture)
    assert bool(CHINESE.search(page)) == (language == "zh")
    assert len(page.splitlines()) <= LONGEST


@EACH_PAGE
@EACH_NODE
def test_inputs_and_outputs_are_tables_of_the_node_s_own(node: str, language: str) -> None:
    texts: dict[str, Any] = locale("en")[node]
    found = tables(help_page(node, language))
    inputs, outputs = ("Inputs", "Outputs") if language == "en" else ("输入", "输出")

    named = [code(row[0]) for table in found if table.section == inputs for row in table.rows]
    told = [code(row[0]) for table in found if table.section == outputs for row in table.rows]
    assert sorted(name for names in named for name in names) == sorted(texts.get("inputs", {}))
    assert [len(names) for names in told] == [1] * len(texts.get("outputs", {}))


@EACH_NODE
def test_both_languages_say_the_same(node: str) -> None:
    english, chinese = help_page(node, "en"), help_page(node, "zh")

    assert headings(english) == headings(chinese)
    pairs = list(zip(tables(english), tables(chinese), strict=True))
    for ours, theirs in pairs:
        assert [len(row) for row in ours.rows] == [len(row) for row in theirs.rows]
        for row, translated in zip(ours.rows, theirs.rows, strict=True):
            for cell, other in zip(row, translated, strict=True):
                assert code(cell) == code(other)
    assert sorted(code(english)) == sorted(code(chinese))
    assert re.findall(r"\]\((.*?)\)", english) == re.findall(r"\]\((.*?)\)", chinese)
    assert re.findall(r"^    .*", english, re.MULTILINE) == re.findall(r"^    .*", chinese, re.MULTILINE)


@EACH_PAGE
def test_the_patchs_page_has_the_dials_numbers(language: str) -> None:
    presets = [load_preset("tiny_video", preset_of(quality)) for quality in QUALITIES]
    numbers = [float(preset.target_density or 0) for preset in presets]
    numbers += [float(str(preset.warmup_steps).removesuffix("%")) for preset in presets]
    (row,) = [
        row for table in tables(help_page("PSAAttentionPatch", language)) for row in table.rows if "quality" in row[0]
    ]

    assert [float(number) for number in re.findall(r"\d+(?:\.\d+)?", row[1])] == numbers


@EACH_NODE
def test_both_languages_name_the_same_other_nodes(node: str) -> None:
    said = []
    for language in LANGUAGES:
        ids = {texts["display_name"]: other for other, texts in locale(language).items()}
        *_, related = help_page(node, language).splitlines()
        said.append([ids[name] for name in re.findall(r"\*\*(.+?)\*\*", related)])
        assert len(said[-1]) >= 2
        assert node not in said[-1]
    assert said[0] == said[1]


@EACH_NODE
def test_quoted_messages_are_those_of_the_code(node: str) -> None:
    everything = sources()

    rows = [row for table in tables(help_page(node, "en")) if table.section in ERRORS for row in table.rows]
    assert rows
    for row in rows:
        for message in code(row[0]):
            for part in re.split(r"\.\.\.|<\w+>|\d+", message):
                # A setting and its value are put together by ConfigError.
                if "=" not in part:
                    assert part.strip() in everything, message
