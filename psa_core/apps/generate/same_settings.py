"""Whether a folder was begun with the settings of a run, which then goes on there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...settings.errors import ConfigError
from ...settings.words import shown

_NOTHING = "nothing"


def check_same(folder: Path, file: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """See that a document says what this run would write, in all that this run says.

    Args:
        folder: the output folder.
        file: name of the document in it.
        there: the document, read from JSON.
        here: plain data for JSON.

    Raises:
        ConfigError: it says something else; the message has the first key that differs, and both values.
    """
    # As it would read back: keys are texts, and tuples lists.
    difference = _first_difference({key: there.get(key) for key in here}, json.loads(json.dumps(here)))
    if difference is not None:
        what = f"holds what was made with other settings: in {file} {difference}; give another folder"
        raise ConfigError("--output", str(folder), what)


def _first_difference(there: Any, here: Any, key: str = "") -> str | None:
    if isinstance(there, list) and isinstance(here, list):
        there, here = dict(enumerate(there)), dict(enumerate(here))
    if isinstance(there, dict) and isinstance(here, dict):
        for name in {**here, **there}:
            found = _first_difference(there.get(name), here.get(name), f"{key}.{name}" if key else str(name))
            if found is not None:
                return found
        return None
    return None if there == here else f"{key} is {_value(there)} there and {_value(here)} here"


def _value(value: Any) -> str:
    return _NOTHING if value is None else shown(value)
