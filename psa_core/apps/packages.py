"""The packages that a command needs beside the library's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_FOLDER = Path(__file__).parents[2]


def need(command: str, *packages: str) -> None:
    """See that the packages of ``psa <command>`` are installed.

    Raises:
        ImportError: some are not; the message says how to install them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"psa {command} needs {', '.join(missing)}: {install_command(command.split()[0])}")


def install_command(extra: str, folder: Path = _FOLDER) -> str:
    """What installs the packages of an extra: from the folder of the pack, which no package index has, or by name.

    Args:
        extra: one of ``project.optional-dependencies`` in ``pyproject.toml``.
        folder: that holds ``psa_core``.
    """
    # An installed wheel has no project file beside it.
    if (folder / "pyproject.toml").is_file():
        return f'pip install -e "{folder}[{extra}]"'
    return f'pip install "pyramid-sparse-attention[{extra}]"'
