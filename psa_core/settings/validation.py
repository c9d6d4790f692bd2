"""Checks that settings share. Each raises a ``ConfigError`` that names the key, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from .errors import ConfigError

Settings = TypeVar("Settings")

# What fits 32 bits; no setting comes near, and Python writes no integer of thousands of digits.
_MOST = 2**31 - 1


class FrozenMap(Mapping[Any, Any]):
    """An immutable, hashable, picklable mapping, so that a config holding one can be a cache key and can be copied."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[Any, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def check_choice(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """``value`` is one of ``allowed``, in type as well."""
    if not any(value == option and type(value) is type(option) for option in allowed):
        raise ConfigError(key, value, "must be one of " + ", ".join(map(str, allowed)))


def check_whole(key: str, value: Any, least: int, most: int = _MOST) -> None:
    """``value`` is a whole number from ``least`` to ``most``."""
    if type(value) is not int or value < least:
        raise ConfigError(key, value, f"must be a whole number, {least} or more")
    if value > most:
        raise ConfigError(key, value, f"must be a whole number from {least} to {most:,}")


def check_text(key: str, value: Any) -> None:
    """``value`` is a text."""
    if not isinstance(value, str):
        raise ConfigError(key, value, "must be a text")


def check_kind(key: str, value: Any, kind: type, how: str) -> None:
    """``value`` is an object of ``kind``, which is made as ``how`` says."""
    if not isinstance(value, kind):
        raise ConfigError(key, value, f"must be a {kind.__name__}: {how}")


def whole_of(word: str) -> int | None:
    """The whole number that a word is, of at most 15 digits; None for any other word."""
    return int(word) if re.fullmatch(r"-?[0-9]{1,15}", word) else None


def number_between(key: str, value: Any, least: float, most: float) -> float:
    """``value``, which must be a number from ``least`` to ``most``, as a float."""
    # Tuples of types where a graph may pass: torch 2.5 compiles no union of them.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ConfigError(key, value, f"must be a number from {least:g} to {most:g}{text_hint(value)}")
    return float(value)


def text_hint(value: Any) -> str:
    """What to do about a number that stands in a file as a text; empty for all else."""
    if not isinstance(value, str) or not re.fullmatch(r"[+-]?(\d+\.?|\d*\.\d+)([eE][+-]?\d+)?", value):
        return ""
    return "; this is a text: leave out quotation marks, and in YAML write 1e-2 as 1.0e-2 or 0.01"


def share(key: str, value: Any) -> float:
    """``value``, which must be a number from 0 to 1, as a float."""
    return number_between(key, value, 0.0, 1.0)


def above_zero(key: str, value: Any) -> float:
    """``value``, which must be a number above 0 and at most 1, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value <= 1.0:
        raise ConfigError(key, value, f"must be a number above 0, and at most 1{text_hint(value)}")
    return float(value)


def extents(key: str, value: Any) -> tuple[int, int, int]:
    """``value``, which must be three whole numbers from 1 on, as a tuple."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
        raise ConfigError(key, value, "must be three whole numbers: frames, height, width")
    for extent in value:
        check_whole(key, extent, 1)
    frames, height, width = value
    return frames, height, width


def nested(key: str, value: Any, kind: type[Settings]) -> Settings | None:
    """Settings inside settings: None, an object of this dataclass, or a mapping of its fields, as files have it.

    Raises:
        ConfigError: the mapping is not valid; keys are dotted (``schedule.curve``).
    """
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(key, value, f"must be a mapping of {kind.__name__}'s settings")
    check_names(kind, value, f"{key}.")
    try:
        return kind(**value)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error.key}", error.value, error.allowed) from None


def check_names(kind: type, settings: Mapping[Any, Any], prefix: str = "") -> None:
    """``settings`` name nothing but fields of a dataclass, and all of those that have no default.

    Args:
        prefix: what errors put in front of a name.
    """
    fields = dataclasses.fields(kind)
    names = [field.name for field in fields]
    for name in settings:
        if name not in names:
            raise ConfigError(f"{prefix}{name}", settings[name], "is unknown; there are " + ", ".join(names))
    for field in fields:
        if field.name not in settings and field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{field.name}", None, "is missing")


def plain(value: Any) -> Any:
    """Settings as Python's own types, which YAML and JSON can write and the constructor reads back."""
    # As ``dataclasses.is_dataclass`` asks, which torch 2.5 does not compile.
    if getattr(value, "__dataclass_fields__", None) is not None and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(x) for key, x in value.items()}
    if isinstance(value, tuple):
        return [plain(x) for x in value]
    return value
