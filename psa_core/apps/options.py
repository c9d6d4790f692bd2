"""``--schedule`` and ``--radial``: settings on a command line, as ``key=value`` words."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..settings.errors import ConfigError, errors_at
from ..settings.mask_ratios import mask_ratios_from_bounds
from ..settings.radial import RadialMask
from ..settings.schedule import Schedule

_LEVELS = (1, 2, 4, 8)
_RATIOS = ("start", "end")
_WORDS = {"true": True, "false": False}


def add_sparsity_options(parser: argparse.ArgumentParser) -> None:
    """The options, which :func:`read_sparsity_options` reads."""
    parser.add_argument(
        "--schedule",
        nargs="+",
        metavar="KEY=VALUE",
        help="what changes over the steps: warmup=25%% last_dense=2 dense_layers=0,1,38-39 curve=linear "
        "start=0.4,0.5,0.6,0.8 end=0.1,0.15,0.2,0.4 (upper bounds of levels 1, 2, 4 and 8) "
        "start_percent=0.2 end_percent=0.9 (dense outside of this share of the steps)",
    )
    parser.add_argument(
        "--radial",
        nargs="*",
        metavar="KEY=VALUE",
        help="a radial mask: mode=coarsen decay_factor=0.5 dense_layers=2 dense_timesteps=5 "
        "scene_boundaries=0,15,30,45",
    )


def read_sparsity_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """The settings ``schedule`` and ``radial`` of a ``PSAConfig``, None where the option was not given.

    Raises:
        ConfigError: a word is not ``key=value``, a key is unknown, or a value is not allowed.
    """
    return {
        "schedule": _read("--schedule", parsed.schedule, Schedule),
        "radial": _read("--radial", parsed.radial, RadialMask),
    }


def _read(option: str, words: Sequence[str] | None, kind: type) -> Any:
    if words is None:
        return None
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in types:
            raise ConfigError(option, word, "must be KEY=VALUE with a key of " + ", ".join(types))
        settings[key] = (
            _ratios(f"{option} {key}", text) if key in _RATIOS else _value(f"{option} {key}", text, types[key])
        )
    with errors_at(option):
        made = kind(**settings)
    return made


def _value(name: str, text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in _WORDS:
            raise ConfigError(name, text, "must be true or false")
        return _WORDS[text.lower()]
    # What may be a text as well, the settings read themselves.
    read: Callable[[str], Any] = {"int": int, "float": float}.get(kind, str)
    try:
        return read(text)
    except ValueError:
        raise ConfigError(name, text, f"must be a {'whole ' if read is int else ''}number") from None


def _ratios(name: str, text: str) -> dict[int, tuple[float, float]]:
    words = text.split(",")
    try:
        bounds = [float(word) for word in words]
    except ValueError:
        bounds = []
    if len(bounds) != len(_LEVELS):
        raise ConfigError(name, text, "must be four numbers from 0 to 1: the upper bounds of levels 1, 2, 4 and 8")
    return mask_ratios_from_bounds(dict(zip(_LEVELS, bounds, strict=True)), f"{name}.{{}}")
