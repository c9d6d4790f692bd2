"""The packages that a command needs beside the library's own."""

from __future__ import annotations

import importlib.util


def need(command: str, *packages: str) -> None:
    """See that the packages of ``psa <command>`` are installed.

    Raises:
        ImportError: some are not; the message says how to install them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        install = f'pip install "pyramid-sparse-attention[{command.split()[0]}]"'
        raise ImportError(f"psa {command} needs {', '.join(missing)}: {install}")
