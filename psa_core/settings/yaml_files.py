"""YAML files, which strangers may have written: whatever stands in one costs little, and what is wrong with it is one
error."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError
from .words import shown

log = logging.getLogger(__name__)

_ENDINGS = (".yaml", ".yml")
# Files of settings have some kilobytes.
_MOST_BYTES = 1 << 20
# With every alias written out.
MOST_VALUES = 10_000


def yaml_files(folder: Path) -> list[Path]:
    """The YAML files in a folder by name; links to files are followed, and names that begin with a dot left out.

    What is named like one and is none (a folder, a pipe, a link to nowhere) is logged and left out.
    """
    named = _named(folder)
    for file in named:
        if not _is_file(file):
            log.warning("presets: %s is no file, or a link to none", shown(file.name))
    return [file for file in named if _is_file(file)]


def fingerprint(folder: Path) -> bytes:
    """What changes with the YAML files in a folder: of their contents, as clocks miss edits that follow fast."""
    digest = hashlib.blake2b(digest_size=16)
    for file in _named(folder):
        digest.update(os.fsencode(file.name) + b"\0")
        try:
            if _is_file(file) and file.stat().st_size <= _MOST_BYTES:
                digest.update(hashlib.blake2b(file.read_bytes()).digest())
        except OSError as error:
            digest.update(str(error.errno).encode())
    return digest.digest()


def _named(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS and not file.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("presets: %s cannot be read: %s", folder.name, error.strerror)
        return []


def _is_file(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.stat().st_mode)
    # The latter of a path with a NUL or half a letter.
    except (OSError, ValueError):
        return False


def read_yaml(file: Path) -> tuple[Any, list[str]]:
    """What a YAML file holds, and notes on what is odd in it: keys that stand twice, of which the last one holds.

    Raises:
        ConfigError: it cannot be read, is no YAML, or is larger than settings are.
    """
    try:
        # Before it is opened: opening a pipe would wait for its other end.
        if not _is_file(file):
            raise ConfigError("file", file.name, "is no file that can be read")
        size = file.stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError("file", file.name, f"has {size:,} bytes; at most {_MOST_BYTES:,} are read")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("file", file.name, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError("file", file.name, f"is not valid YAML: no UTF-8 ({error.reason})", file.name) from error
    return _parse(text, file.name)


def yaml_text(document: Any, *, flow: bool | None = False) -> str:
    """The YAML text of plain data, keys in their order, which reads as what it was.

    Args:
        flow: whether lists and mappings stand in one line; None for those alone that hold no others.
    """
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow)
    return text


class _Dumper(yaml.SafeDumper):
    """PyYAML's, but for texts with U+0085, a line break that it writes as it is and reads as a blank."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _represent_text)


class _Loader(yaml.SafeLoader):
    """PyYAML's, but for files of more values than settings have, which would keep it busy for seconds."""

    composed = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.composed += 1
        if self.composed > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values")
        return super().compose_node(parent, index)


def _parse(text: str, name: str) -> tuple[Any, list[str]]:
    try:
        # The reader looks through the whole text at once.
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, []
        nodes = _written_out(node, {}, [])
        if nodes > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values with its aliases written out")
        # First: merged keys (``<<``) become keys of a mapping when it is made.
        notes = list(_twice(node, name))
        return loader.construct_document(node), notes
    # PyYAML lets plain errors of every kind through: ValueError for a date such as 2025-99-99, KeyError for a word that
    # is said to be a bool, RecursionError for deep nesting.
    except Exception as error:
        why = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError | ValueError) else type(error).__name__
        raise ConfigError("file", name, f"is not valid YAML: {why}", name) from error


def _written_out(node: yaml.Node, known: dict[int, int], above: list[int]) -> int:
    """How many values a node stands for with its aliases written out."""
    if id(node) in above:
        raise ValueError("an alias stands inside what it names")
    if id(node) not in known:
        above.append(id(node))
        children: Iterator[yaml.Node] = iter(())
        if isinstance(node, yaml.SequenceNode):
            children = iter(node.value)
        elif isinstance(node, yaml.MappingNode):
            children = (child for pair in node.value for child in pair)
        known[id(node)] = 1 + sum(_written_out(child, known, above) for child in children)
        above.pop()
    return known[id(node)]


def _twice(root: yaml.Node, name: str) -> Iterator[str]:
    """A note for every key that stands twice in one mapping."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, Any]] = set()
            for key, value in node.value:
                waiting.append(value)
                this = key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key)
                if this in keys and key.value != "<<":
                    line = key.start_mark.line + 1
                    yield f"{name}: key {shown(key.value)} stands twice, in line {line}; the last holds"
                keys.add(this)
