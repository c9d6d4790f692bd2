"""Presets of the user's own, written beside what their file holds already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .config import PSAConfig
from .errors import ConfigError
from .files import file_name, locked, write_text
from .preset_schema import ModelFamily, config_to_schema, read_preset_file
from .presets import PRESETS_DIR_VARIABLE, bundled_dir, load_families, same_settings, user_dir
from .yaml_files import read_yaml, yaml_text

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._ @+-]{0,98}[A-Za-z0-9_@+-])?")


def save_preset(
    model: str, preset: str, config: PSAConfig, folder: str | Path | None = None, *, overwrite: bool = True
) -> Path:
    """Write one preset to ``<folder>/<model>.yaml``, in upstream's schema, keeping what the file holds already.

    Processes that save at the same time wait for each other.

    Args:
        folder: the user's preset folder; None for ``PSA_PRESETS_DIR``.
        overwrite: replace a preset that the file has under this name; off, that is an error.

    Returns:
        The file written.

    Raises:
        ConfigError: a name that is no plain file name or is that of a bundled preset with other settings, no folder, or
            a ``text_length`` other than that of the model in the file.
        WriteError: the file cannot be written; it is as it was.
    """
    check_file_name("model", model)
    check_name("preset", preset)
    target = Path(folder) if folder is not None else user_dir()
    if target is None:
        raise ConfigError(PRESETS_DIR_VARIABLE, None, "set it to a folder of your own to save presets there")
    bundled = load_families(bundled_dir()).get(model)
    if bundled and preset in bundled.presets and not same_settings(bundled.presets[preset], config):
        raise ConfigError("preset", preset, f"is the name of a bundled preset of {model}; choose another name")
    file = target / f"{model}.yaml"
    with locked(target):
        document = _with_preset(file, model, preset, config, bundled, overwrite)
        write_text(file, yaml_text(document))
    return file


def _with_preset(
    file: Path, model: str, preset: str, config: PSAConfig, bundled: ModelFamily | None, overwrite: bool
) -> dict[str, Any]:
    """What a file holds, and a preset."""
    document: dict[str, Any] = {}
    if file.exists():
        read_preset_file(file)
        document = read_yaml(file)[0] or {}
    family = document.setdefault(model, {"default_attention": preset, "text_length": config.text_length})
    if family.get("text_length", 0) != config.text_length:
        allowed = f"{file.name} has {family.get('text_length', 0)} for every preset of {model}"
        raise ConfigError("text_length", config.text_length, allowed)
    if bundled:
        family.setdefault("video_scale", dict(bundled.video_scale))
    presets = family.setdefault("attention_configs", {})
    if preset in presets and not overwrite:
        raise ConfigError("preset", preset, f"{model} has a preset of this name; turn overwrite on, or choose another")
    presets[preset] = config_to_schema(config)
    return document


def check_file_name(key: str, name: str) -> None:
    """Raise a ConfigError for a name that cannot be that of a file on every disk."""
    check_name(key, name)
    if file_name(name) != name:
        raise ConfigError(key, name, "is no name for a file: Windows keeps it for a device")


def check_name(key: str, name: str) -> None:
    """Raise a ConfigError for a name that cannot be a model's or a preset's."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(key, name, "must be a plain name of at most 100 letters, digits, spaces and . _ - + @")
