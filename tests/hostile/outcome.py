"""What may become of a stranger's input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psa_core.settings.errors import ConfigError

from ..support.little_work import little_work


@contextmanager
def refused_or_taken(naming: str = "") -> Iterator[None]:
    """What runs here ends within a second of work, and with a :class:`ConfigError` of a few lines if with any error.

    Args:
        naming: what the error has to name.
    """
    said = ""
    with little_work():
        try:
            yield
        except ConfigError as error:
            said = str(error)
            assert naming in said
    assert len(said.encode()) < 2000
