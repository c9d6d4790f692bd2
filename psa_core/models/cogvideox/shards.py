"""Model files that come in numbered parts."""

from __future__ import annotations

import re
from pathlib import Path

from ...settings.errors import ConfigError


def all_shards(path: Path, key: str) -> list[Path]:
    """Every part of the model that `path` is a part of, in order; only `path` for a file that is whole.

    Args:
        path: ``<name>-00001-of-00003.safetensors``, any of its parts, or a file of any other name.
        key: the setting that named the file, for errors.

    Raises:
        ConfigError: a part is not in the folder.
    """
    found = re.fullmatch(r"(.+)-(\d+)-of-(\d+)(\.\w+)", path.name)
    if found is None:
        return [path]
    stem, digits, count, ending = found[1], len(found[2]), found[3], found[4]
    shards = [path.with_name(f"{stem}-{number:0{digits}}-of-{count}{ending}") for number in range(1, int(count) + 1)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ConfigError(key, path.name, f"is one of {int(count)} files; put {' and '.join(missing)} beside it")
    return shards
