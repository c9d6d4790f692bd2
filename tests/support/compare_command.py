"""``psa compare`` with a tiny random model."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from psa_core.apps.cli import main

MODEL = "Wan2.1_1.3b"
WIDTH, HEIGHT, FRAMES, STEPS = 128, 96, 5, 3
FOX = 'A <b>fox</b> & "friends"'
PRESETS = """
Wan2.1_1.3b:
  default_attention: fine
  attention_configs:
    plain: {type: dense}
    full: {type: psa, mask_mode: topk, mask_ratios: {1: [0, 1]}, block_size: {m: 64, n: 32}, warmup_steps: 1}
    fine: {type: psa, mask_mode: topk, mask_ratios: {1: [0, 0.4], 2: [0.4, 1]}, block_size: {m: 64, n: 32}}
    coarse it: {type: psa, mask_mode: topk, mask_ratios: {1: [0, 0.3], 0: [0.3, 1]}, block_size: {m: 64, n: 32}}
    late: {type: psa, warmup_steps: 99}
"""


class Compare:
    """``psa compare`` with a tiny model, writing to a folder."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder, self.output = folder, output

    def __call__(self, *words: str, prompts: tuple[str, ...] = (FOX,), backend: str = "torch") -> int:
        return main(self.command(*words, prompts=prompts, backend=backend))

    def command(self, *words: str, prompts: tuple[str, ...] = (FOX,), backend: str = "torch") -> list[str]:
        """Arguments of ``psa``."""
        size = ["--width", str(WIDTH), "--height", str(HEIGHT), "--frames", str(FRAMES), "--steps", str(STEPS)]
        where = ["--path", str(self.folder / "wan"), "--presets-file", str(self.folder / "mine.yaml")]
        said = [word for prompt in prompts for word in ("--prompt", prompt)]
        attention = ["--backend", backend, "--min-tokens", "0", "--output", str(self.output)]
        return ["compare", "--model", MODEL, *where, *size, *said, *attention, *words]

    def names(self) -> set[str]:
        return {file.name for file in self.output.glob("[!.]*")}

    def numbers(self) -> dict[str, Any]:
        return json.loads((self.output / "compare.json").read_text(encoding="utf-8"))

    def summary(self) -> dict[str, dict[str, Any]]:
        """By preset."""
        return {row["preset"]: row for row in self.numbers()["summary"]}

    def page(self) -> Page:
        page = Page()
        page.feed((self.output / "index.html").read_text(encoding="utf-8"))
        page.close()
        return page


class Page(HTMLParser):
    """What a page links to and says; fails where tags do not match."""

    _void = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [unquote(value or "") for name, value in attrs if name in ("src", "href")]
        if tag not in self._void:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))

    def close(self) -> None:
        super().close()
        assert self._open == []
