"""All presets, by model: the bundled files first, then those in the user's own folder, then the dial's."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

from .config import PSAConfig
from .dial import dial_presets
from .errors import ConfigError
from .preset_schema import ModelFamily, read_preset_file
from .yaml_files import yaml_files

log = logging.getLogger(__name__)

PRESETS_DIR_VARIABLE = "PSA_PRESETS_DIR"


def bundled_dir() -> Path:
    """The folder of the presets that come with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "_presets"
    return inside if inside.is_dir() else package.parent / "presets"


def user_dir() -> Path | None:
    """The user's own preset folder, from the environment variable ``PSA_PRESETS_DIR``; None when it is not set."""
    folder = os.environ.get(PRESETS_DIR_VARIABLE)
    return Path(folder).expanduser() if folder else None


def load_presets(path: str | Path | None = None) -> dict[str, dict[str, PSAConfig]]:
    """All presets by model; every model has those of the dial, :func:`~.dial.dial_presets`.

    Args:
        path: a preset file, or a folder of them; None for the bundled presets and the user's.

    Returns:
        ``{model: {preset: PSAConfig}}``.

    Raises:
        ConfigError: a file holds something that is not allowed; the message names file, model, preset and key.
        FileNotFoundError: ``path`` does not exist.
    """
    return {name: dict(family.presets) for name, family in load_families(path).items()}


def load_preset(model: str, preset: str | None = None, path: str | Path | None = None) -> PSAConfig:
    """One preset of one model; the model's default preset when ``preset`` is None.

    Raises:
        ConfigError: no such model or preset, or a file is not valid.
    """
    families = load_families(path)
    if model not in families:
        raise ConfigError("model", model, "must be one of " + ", ".join(sorted(families)))
    family = families[model]
    name = family.default if preset is None else preset
    if name not in family.presets:
        raise ConfigError("preset", name, f"{model} has " + ", ".join(family.presets))
    return family.presets[name]


def load_families(
    path: str | Path | None = None, *, user: Path | None = None, errors: list[ConfigError] | None = None
) -> dict[str, ModelFamily]:
    """Like :func:`load_presets`, with what else a file says of a model; notes are logged as warnings.

    Args:
        path: a preset file, or a folder of them; None for the bundled presets and the user's.
        user: the user's folder; None for ``PSA_PRESETS_DIR``. It need not exist.
        errors: a list that takes the error of each file that is not valid or holds nothing, and the others load; None
            raises the first that is not valid.
    """
    if path is not None:
        files = _preset_files(Path(path))
    else:
        own = user or user_dir()
        files = _preset_files(bundled_dir()) + (_preset_files(own) if own and own.is_dir() else [])
    families: dict[str, ModelFamily] = {}
    for file in files:
        try:
            found = read_preset_file(file)
        except ConfigError as error:
            if errors is None:
                raise
            errors.append(error)
            continue
        if not found:
            empty = ConfigError("file", file.name, "holds nothing: write presets into it, or delete it")
            log.warning("%s", empty) if errors is None else errors.append(empty)
        for family in found:
            known = families.get(family.name)
            families[family.name] = merged = _merge(known, family, file)
            for note in merged.notes[len(known.notes) if known else 0 :]:
                log.warning("%s", note)
    return {name: _with_dial(family) for name, family in families.items()}


def _preset_files(path: Path) -> list[Path]:
    if path.is_dir():
        return yaml_files(path)
    if not path.is_file():
        raise FileNotFoundError(f"no preset file or folder at {path}")
    return [path]


def _with_dial(family: ModelFamily) -> ModelFamily:
    """Add the dial's presets to a model; those that its files have under these names come before them."""
    presets = dict(family.presets)
    default = presets.get(family.default, PSAConfig(text_length=family.text_length))
    for name, config in dial_presets(default).items():
        presets.setdefault(name, config)
    return dataclasses.replace(family, presets=presets)


def _merge(known: ModelFamily | None, new: ModelFamily, file: Path) -> ModelFamily:
    """Add a later file's presets to a model; a name that is taken is kept apart, so that nothing is overridden."""
    if known is None:
        return new
    presets, notes = dict(known.presets), [*known.notes, *new.notes]
    if new.default != known.default:
        notes.append(f"{file.name}: {new.name}: default_attention stays {known.default!r}, not {new.default!r}")
    for name, config in new.presets.items():
        if name in presets and same_settings(presets[name], config):
            continue
        if name in presets:
            apart = f"{name}@{file.stem}"
            while apart in presets and not same_settings(presets[apart], config):
                apart += "+"
            notes.append(
                f"{file.name}: {new.name}: preset {name!r} is already there with other settings; "
                f"the one of this file is listed as {apart!r}"
            )
            name = apart
        presets[name] = config
    return dataclasses.replace(known, presets=presets, notes=tuple(notes))


def same_settings(a: PSAConfig, b: PSAConfig) -> bool:
    """Whether two presets differ in their words at most."""
    return a.replace(description="") == b.replace(description="")
