"""The one error a user's settings can raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .words import cut, shown

_SOURCE, _KEY, _ALLOWED = 400, 200, 1000


class ConfigError(ValueError):
    """A setting is not allowed.

    The message always reads ``<where>: <key> = <value>: <what is allowed>``, where ``<where>`` names the file, model
    and preset that the setting came from (nothing for settings given in code). What a stranger's file put into it is
    cut to a line's length, and costs no more than that to write.

    Attributes:
        key: name of the setting, dotted for nested ones (``mask_ratios.2``).
        value: the refused value.
        allowed: what would have been accepted, in words.
        source: where the setting came from, or ``""``.
    """

    def __init__(self, key: str, value: Any, allowed: str, source: str = "") -> None:
        self.key, self.value, self.allowed, self.source = key, value, allowed, source
        where = f"{cut(source, _SOURCE)}: " if source else ""
        super().__init__(f"{where}{cut(key, _KEY)} = {shown(value)}: {cut(allowed, _ALLOWED)}")

    def at(self, source: str) -> ConfigError:
        """The same error with the place it came from put in front."""
        return ConfigError(self.key, self.value, self.allowed, f"{source}: {self.source}" if self.source else source)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.value, self.allowed, self.source)


@contextmanager
def errors_at(source: str) -> Iterator[None]:
    """Say of every :class:`ConfigError` inside where the setting came from."""
    try:
        yield
    except ConfigError as error:
        raise error.at(source) from None
