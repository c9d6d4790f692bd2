"""The README in both languages: the same facts in the same form, links that lead somewhere, everything named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from psa_core.settings.dial import QUALITIES, preset_of
from psa_core.settings.presets import load_preset
from tools.backend_table import backend_table

from ..comfyui.pack_texts import CHINESE, LANGUAGES, ROOT, code, headings, locale, node_ids, tables

FILES = {"en": "README.md", "zh": "README_zh.md"}
NODES = {"en": "Nodes", "zh": "节点"}
WORKFLOWS = {"en": "Workflows", "zh": "工作流"}
EACH_LANGUAGE = pytest.mark.parametrize("language", LANGUAGES)

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    \S.*", re.MULTILINE)
IMAGE_TAG = re.compile(r'<img src="(\S+)" width="(\d+)" alt="([^"]+)">')
LINK = re.compile(r"(!?)\[[^\]]+\]\(([^)]+)\)")
TABLE_HEAD = re.compile(r"^\|(.+)\|\n\|([-|]+)\|$", re.MULTILINE)
# As Chinese has them.
OPEN, CLOSE = "\uff08", "\uff09"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def readme(language: str) -> str:
    return (ROOT / FILES[language]).read_text(encoding="utf-8")


def prose(language: str) -> str:
    """All but the code blocks."""
    return INDENTED.sub("", FENCED.sub("", readme(language)))


def code_blocks(language: str) -> list[str]:
    text = readme(language)
    return FENCED.findall(text) + INDENTED.findall(FENCED.sub("", text))


def sections(language: str) -> list[str]:
    """The text from each heading to the next."""
    return re.split(r"^(?=#+ )", prose(language), flags=re.MULTILINE)[1:]


def chapter(language: str, title: str) -> str:
    """What stands under a heading of the second level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", prose(language), re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def links(language: str) -> list[tuple[str, str]]:
    """Marks (``!`` for pictures) and targets, in order, without the link to the other language."""
    found: list[tuple[str, str]] = LINK.findall(prose(language))
    return [(mark, target) for mark, target in found if target not in FILES.values()]


def numbers(language: str, section: str) -> list[str]:
    if language == "zh":
        section = re.sub(r"(\d+)00 万", r"\1 million", section)
        # A month is a word in English.
        section = re.sub(r"(\d+) 年 \d+ 月", r"\1", section)
    return sorted(NUMBER.findall(section))


def spans(text: str) -> list[str]:
    """What stands between backticks, which may go over the end of a line."""
    return sorted(" ".join(span.split()) for span in code(text))


def anchors(file: Path) -> set[str]:
    """What a link can name in a Markdown file, as GitHub spells it."""
    titles = re.findall(r"^#+ (.+)", FENCED.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def named_nodes(language: str) -> list[str]:
    """Ids of the nodes that have a heading or stand out in bold at the head of an item, in order."""
    ids = {texts["display_name"]: node for node, texts in locale(language).items()}
    text = chapter(language, NODES[language])
    heads = re.findall(r"^(?:### .+|- \*\*.+)", text, re.MULTILINE)
    titles = [re.findall(r"\*\*(.+?)\*\*", head) or [head.removeprefix("### ").partition(OPEN)[0]] for head in heads]
    return [ids[title] for group in titles for title in group if title in ids]


@EACH_LANGUAGE
def test_each_language_leads_to_the_other(language: str) -> None:
    (other,) = set(LANGUAGES) - {language}
    words = {"en": "English", "zh": "中文"}

    assert readme(language).splitlines()[2] == f"[{words[other]}]({FILES[other]})"


def test_headings_are_the_same_by_level_and_translated() -> None:
    assert headings(prose("en")) == headings(prose("zh"))
    assert all(CHINESE.search(section.splitlines()[0]) for section in sections("zh"))


def test_paragraphs_are_in_their_language() -> None:
    assert set(CHINESE.findall(readme("en"))) == set("中文")
    for paragraph in re.split(r"\n\s*\n", IMAGE_TAG.sub("", prose("zh"))):
        if paragraph.strip() and paragraph.strip() != "[English](README.md)":
            assert CHINESE.search(paragraph), paragraph


def test_tables_have_the_same_rows_and_columns() -> None:
    pairs = list(zip(tables(prose("en")), tables(prose("zh")), strict=True))

    assert pairs
    for ours, theirs in pairs:
        assert [len(row) for row in ours.rows] == [len(row) for row in theirs.rows]
        assert len({len(row) for row in ours.rows}) == 1, ours.section
        for row, translated in zip(ours.rows, theirs.rows, strict=True):
            for cell, other in zip(row, translated, strict=True):
                assert code(cell) == code(other)
                assert numbers("en", cell) == numbers("zh", other), cell


@EACH_LANGUAGE
def test_tables_have_a_head_as_wide_as_their_rows(language: str) -> None:
    heads = TABLE_HEAD.findall(prose(language))

    for (head, rule), table in zip(heads, tables(prose(language)), strict=True):
        assert {head.count("|"), rule.count("|")} == {len(row) - 1 for row in table.rows}, head


def test_code_blocks_are_the_same() -> None:
    assert code_blocks("en")
    assert code_blocks("en") == code_blocks("zh")


def test_the_library_s_page_says_the_same_in_both_languages() -> None:
    english, chinese = ((ROOT / "psa_core" / name).read_text(encoding="utf-8") for name in FILES.values())

    assert FENCED.findall(english) == FENCED.findall(chinese)
    assert len(FENCED.findall(english)) > 3
    for section, translated in zip(english.split("\n\n")[1:], chinese.split("\n\n")[1:], strict=True):
        assert spans(FENCED.sub("", section)) == spans(FENCED.sub("", translated)), section
    for _, target in LINK.findall(english) + LINK.findall(chinese):
        assert target.startswith("https://") or (ROOT / "psa_core" / target.partition("#")[0]).is_file(), target


def test_sections_have_the_same_numbers_and_settings() -> None:
    for english, chinese in zip(sections("en"), sections("zh"), strict=True):
        assert numbers("en", english) == numbers("zh", chinese), english.splitlines()[0]
        assert spans(english) == spans(chinese), english.splitlines()[0]


def test_links_and_pictures_are_the_same() -> None:
    assert sorted(links("en")) == sorted(links("zh"))
    shown = {language: [tag[:2] for tag in IMAGE_TAG.findall(readme(language))] for language in LANGUAGES}
    assert shown["en"] == shown["zh"]
    assert len(shown["en"]) == readme("en").count("<img ")


@EACH_LANGUAGE
def test_relative_links_and_pictures_lead_to_files(language: str) -> None:
    targets = [target for _, target in LINK.findall(prose(language))]
    targets += [tag[0] for tag in IMAGE_TAG.findall(readme(language))]
    here = [target for target in targets if not target.startswith("https://")]

    assert len(here) > 10
    for target in here:
        path, _, anchor = target.partition("#")
        file = ROOT / (path or FILES[language])
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


def test_every_node_is_named_in_the_same_order() -> None:
    named = {language: named_nodes(language) for language in LANGUAGES}

    assert sorted(named["en"]) == sorted(node_ids())
    assert named["en"] == named["zh"]
    for texts in locale("en").values():
        assert f"{OPEN}{texts['display_name']}{CLOSE}" in chapter("zh", NODES["zh"])


@EACH_LANGUAGE
def test_every_workflow_is_named_and_no_other(language: str) -> None:
    (table,) = tables(chapter(language, WORKFLOWS[language]))
    named = [name for row in table.rows for name in code(row[0])]

    assert sorted(named) == sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))


@EACH_LANGUAGE
def test_the_table_of_backends_is_that_of_the_code(language: str) -> None:
    assert f"\n\n{backend_table(language)}\n\n" in readme(language)


@EACH_LANGUAGE
def test_the_tuning_guide_has_the_dials_numbers(language: str) -> None:
    presets = {quality: load_preset("tiny_video", preset_of(quality)) for quality in QUALITIES}
    dial = [[f"`{quality}`", f"{preset.target_density:g}", preset.warmup_steps] for quality, preset in presets.items()]

    assert dial in [[row[:3] for row in table.rows] for table in tables(readme(language))]


@EACH_LANGUAGE
def test_the_tests_are_run_as_the_check_of_every_change_runs_them(language: str) -> None:
    told = re.findall(r'^pip install -e "\.\[test\]" && (pytest[^#\n]*?) *(?:#.*)?$', readme(language), re.MULTILINE)
    check = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert told == ["pytest -n 2"]
    newest, own = re.findall(r"^ *(?:nice )?(pytest.*?)(?: \"\$\{require\[@\]\}\")?$", check, re.MULTILINE)
    assert [own] == told
    assert newest.startswith(own)
    assert 'pip install -q -e ".[test]"' in re.findall("^pip install.*$", check, re.MULTILINE)
