"""Tiny random models of every family: a file each, with what is expected of its attention."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from .family import Case, Family, sampled

__all__ = ["CASES", "Case", "Family", "sampled"]

CASES: dict[str, Case] = {}
for _file in iter_modules(__path__):
    CASES |= getattr(import_module(f".{_file.name}", __name__), "CASES", {})
