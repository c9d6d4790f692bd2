"""What may become of a stranger's input."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from psa_core.settings.errors import ConfigError

_SECOND = 1.0


@contextmanager
def refused_or_taken() -> Iterator[None]:
    """What runs here ends within a second of work, and with a :class:`ConfigError` of a few lines if with any error."""
    start, said = time.process_time(), ""
    try:
        yield
    except ConfigError as error:
        said = str(error)
    assert len(said.encode()) < 2000
    assert time.process_time() - start < _SECOND
