"""What an attention function is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_PREFIX = "attention_"


def attention_name(function: Callable[..., Any]) -> str:
    """Of an attention function of ComfyUI's, or of an override, which may have one of these within it."""
    inner = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    names = [getattr(each, "__name__", "") for each in (*inner, function)]
    known = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
    return known[0] if known else f"override {names[-1] or type(function).__name__}"
