"""The pack's node ids, locale files and help pages, read without ComfyUI."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "web" / "docs"
LANGUAGES = ("en", "zh")
CHINESE = re.compile("[\u4e00-\u9fff]")


class Table(NamedTuple):
    """A table of a help page.

    Attributes:
        section: the heading above it.
        rows: its cells, without the header.
    """

    section: str
    rows: list[list[str]]


def node_ids() -> list[str]:
    """Every node class that the pack defines."""
    sources = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "nodes").glob("*.py"))]
    return [found for source in sources for found in re.findall(r'\bnode_id="(\w+)"', source)]


def locale(language: str) -> dict[str, Any]:
    """A language's texts by node id."""
    texts: dict[str, Any] = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return texts


def page_path(node: str, language: str) -> Path:
    """Where the front end looks for a node's help page."""
    return PAGES / node / f"{language}.md"


def help_page(node: str, language: str) -> str:
    """A node's help page."""
    return page_path(node, language).read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    """The marks of a page's headings, such as ``#`` and ``##``, in order."""
    return re.findall(r"^(#+) ", page, re.MULTILINE)


def tables(page: str) -> list[Table]:
    """The tables of a page, in order."""
    found: list[Table] = []
    section, lines = "", []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if lines:
            found.append(Table(section, lines[2:]))
            lines = []
        if line.startswith("#"):
            section = line.lstrip("# ")
    return found


def code(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)
