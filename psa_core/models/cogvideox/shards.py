"""Model files that come in numbered parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ...settings.errors import ConfigError

_NAMED = 3


def all_shards(path: Path, key: str) -> list[Path]:
    """Every part of the model that `path` is a part of, in order; only `path` for a file that is whole.

    Args:
        path: ``<name>-00001-of-00003.safetensors``, any of its parts, or a file of any other name.
        key: the setting that named the file, for errors.

    Raises:
        ConfigError: a part is not in the folder.
    """
    found = re.fullmatch(r"(.+)-(\d{1,9})-of-(\d{1,9})(\.\w+)", path.name)
    if found is None or not 1 <= int(found[2]) <= int(found[3]):
        return [path]
    stem, digits, total, ending = found[1], len(found[2]), found[3], found[4]

    def names() -> Iterator[str]:
        return (f"{stem}-{number:0{digits}}-of-{total}{ending}" for number in range(1, int(total) + 1))

    there = {file.name for file in path.parent.iterdir() if file.is_file()}
    # Not all: a name can speak of millions.
    missing = list(islice((name for name in names() if name not in there), _NAMED + 1))
    if missing:
        others = " and others" if len(missing) > _NAMED else ""
        raise ConfigError(
            key, path.name, f"is one of {int(total)} files; put {' and '.join(missing[:_NAMED])}{others} beside it"
        )
    return [path.with_name(name) for name in names()]
