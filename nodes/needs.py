"""Packages that some nodes want and ComfyUI does not bring."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PACK = Path(__file__).resolve().parents[1]


def require(*modules: str) -> None:
    """See that modules can be imported.

    Raises:
        RuntimeError: some cannot; the message names them and the command that installs them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise RuntimeError(
            f"{' and '.join(missing)} cannot be imported: run `pip install -r requirements.txt` with ComfyUI's Python "
            f"in {_PACK}, and restart ComfyUI"
        )
