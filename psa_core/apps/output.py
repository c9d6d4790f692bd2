"""The folder that a command writes to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..settings.errors import ConfigError


def make_output(folder: Path) -> None:
    """Make the output folder and see that files can be written there.

    Raises:
        ConfigError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError("--output", str(folder), f"cannot be written: {error.strerror}") from None
