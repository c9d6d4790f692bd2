"""YAML files of strangers: each fault is one error of its own file, at little cost, and all other files are read."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from psa_core.settings.errors import ConfigError
from psa_core.settings.presets import load_families
from psa_core.settings.yaml_files import fingerprint, read_yaml, yaml_files

from ..support.little_work import little_work
from .test_words import ALIASES

GOOD = "Mine:\n  attention_configs:\n    dense: {type: dense}\n"
MERGED = "a: &a {x: 1}\nb: &b\n  <<: *a\n  <<: *a\n" + "\n".join(
    f"k{i}: &k{i} {{<<: [{', '.join([f'*k{i - 1}' if i else '*b'] * 9)}]}}" for i in range(9)
)


BROKEN = {
    "word for a bool": "a: !!bool maybe",
    "date": "a: 2025-99-99",
    "word for a date": "a: !!timestamp soon",
    "nothing for an integer": 'a: !!int ""',
    "integer": "a: " + "1" * 5000,
    "nested": "[" * 100_000,
    "object": "a: !!python/object/apply:os.system [true]",
    "unhashable": "{[1]: 2}",
    "inside itself": "a: &a [*a]",
    "aliases": ALIASES,
    "merges": MERGED,
    "no alias": "a: *b",
    "nul": "a: \0",
    "tab": "a:\n\t- b",
    "list": "[1, 2]",
    "values": f"[{'1,' * 500_000}1]",
    "keys": "".join(f"k{i}: 1\n" for i in range(80_000)),
    "size": "a: " + "x" * (1 << 20),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_wrong_is_one_short_error_of_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    (tmp_path / "good.yaml").write_text(GOOD)
    errors: list[ConfigError] = []

    with little_work(3):
        families = load_families(tmp_path, errors=errors)

    assert list(families) == ["Mine"]
    (error,) = errors
    assert "bad.yaml" in str(error)
    assert len(str(error)) < 500
    assert "\n" not in str(error)


def test_letters_of_another_encoding_are_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")

    with pytest.raises(ConfigError, match=r"latin.yaml.* no UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


@pytest.mark.skipif(os.name == "nt", reason="links and pipes need more on Windows")
def test_only_files_are_read_and_nothing_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    (tmp_path / "other.yml").symlink_to(good)
    (tmp_path / ".#good.yaml").symlink_to("someone@somewhere:1")
    (tmp_path / ".good.yaml.swp.yaml").write_text("{")
    (tmp_path / "nowhere.yaml").symlink_to(tmp_path / "gone")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")

    with caplog.at_level(logging.WARNING):
        assert yaml_files(tmp_path) == [good, tmp_path / "other.yml"]
        assert list(load_families(tmp_path)) == ["Mine"]

    for name in ("nowhere.yaml", "folder.yaml", "pipe.yaml", "loop.yaml"):
        assert f"{name!r} is no file" in caplog.text
        with pytest.raises(ConfigError, match="is no file that can be read"):
            read_yaml(tmp_path / name)


def test_a_folder_that_is_gone_has_none(tmp_path: Path) -> None:
    assert yaml_files(tmp_path / "gone") == []


def test_a_file_that_vanishes_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    gone = tmp_path / "gone.yaml"
    monkeypatch.setattr("psa_core.settings.presets.yaml_files", lambda folder: [gone, tmp_path / "good.yaml"])
    errors: list[ConfigError] = []

    assert list(load_families(tmp_path, errors=errors)) == ["Mine"]
    assert [error.value for error in errors] == ["gone.yaml"]


def test_ordinary_aliases_and_merges_work(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("base: &base {x: 1, y: [1, 2]}\nsame: *base\nmore: {<<: *base, x: 3}\n")

    document, notes = read_yaml(file)

    assert document == {"base": {"x": 1, "y": [1, 2]}, "same": {"x": 1, "y": [1, 2]}, "more": {"x": 3, "y": [1, 2]}}
    assert not notes


def test_keys_that_stand_twice_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "good.yaml").write_text(GOOD + "    dense: {type: dense, warmup_steps: 3}\n")

    with caplog.at_level(logging.WARNING):
        families = load_families(tmp_path)

    assert families["Mine"].presets["dense"].warmup_steps == 3
    assert "good.yaml: key 'dense' stands twice, in line 4; the last holds" in caplog.text


def test_many_unknown_keys_take_a_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = "".join(f"    {'k' * 300}{i}: 1\n" for i in range(2000))
    (tmp_path / "good.yaml").write_text(
        GOOD.replace("  attention_configs", more.replace("    ", "  ") + "  attention_configs")
    )

    with little_work(3), caplog.at_level(logging.WARNING):
        load_families(tmp_path)

    assert "1,990 more unknown keys are ignored" in caplog.text
    assert len(caplog.text) < 5000


def test_an_edit_that_the_clock_does_not_show_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    before, times = fingerprint(tmp_path), file.stat()
    file.write_text(GOOD.replace("dense:", "other:"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert file.stat().st_size == times.st_size
    assert fingerprint(tmp_path) != before
    file.write_text(GOOD)
    assert fingerprint(tmp_path) == before


@pytest.mark.skipif(os.name == "nt", reason="links and pipes need more on Windows")
def test_what_is_no_file_has_a_fingerprint(tmp_path: Path) -> None:
    seen = {fingerprint(tmp_path)}
    for make in (
        lambda: os.mkfifo(tmp_path / "pipe.yaml"),
        lambda: (tmp_path / "nowhere.yaml").symlink_to(tmp_path / "gone"),
        lambda: (tmp_path / "folder.yaml").mkdir(),
        lambda: (tmp_path / "large.yaml").write_bytes(b"x" * (2 << 20)),
    ):
        make()
        seen.add(fingerprint(tmp_path))

    assert len(seen) == 5
    assert fingerprint(tmp_path / "gone") == fingerprint(tmp_path / "also_gone")
