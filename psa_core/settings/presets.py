"""Presets: YAML files in upstream's schema <-> PSAConfig.

A preset file maps model names to families::

    Wan2.1_14b:
      default_attention: psa_balanced
      video_scale: {width_divisor: 16, height_divisor: 16, depth_divisor: 4}
      text_length: 0
      attention_configs:
        psa_balanced: {type: psa, block_size: {m: 128, n: 128, tile_n: 32}, mask_ratios: {...}, ...}

Files are data: read with ``yaml.safe_load``, never executed. Bundled files come first, then the user's own folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .config import PSAConfig
from .errors import ConfigError, errors_at
from .files import file_name, locked, write_text
from .validation import plain
from .words import cut, shown
from .yaml_files import read_yaml, yaml_files

log = logging.getLogger(__name__)

PRESETS_DIR_VARIABLE = "PSA_PRESETS_DIR"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._ @+-]{0,98}[A-Za-z0-9_@+-])?")
# Of unknown keys in one mapping, and their letters that are compared with known ones.
_NAMED, _LONGEST_KEY = 10, 40
_FAMILY_KEYS = ("default_attention", "video_scale", "text_length", "attention_configs")
_BLOCK_KEYS = {"m": "block_m", "n": "block_n", "tile_n": "tile_n"}
_SCALE_KEYS = ("width_divisor", "height_divisor", "depth_divisor")
# text_length belongs to the family, the block sizes stand under block_size.
_PRESET_KEYS = tuple(
    f.name for f in dataclasses.fields(PSAConfig) if f.name not in ("text_length", *_BLOCK_KEYS.values())
)


@dataclass(frozen=True)
class ModelFamily:
    """The presets of one model.

    Attributes:
        name: model name, such as ``Wan2.1_14b``.
        default: name of the preset used when none is asked for.
        video_scale: pixels a token in width and height, video frames a token in depth.
        text_length: text tokens in front of the video tokens.
        presets: preset name -> settings.
        notes: what was found odd in the file and changes nothing, such as unknown keys.
    """

    name: str
    default: str
    video_scale: Mapping[str, int] = field(default_factory=dict)
    text_length: int = 0
    presets: Mapping[str, PSAConfig] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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
    """All presets by model.

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
    return families


def read_preset_file(file: Path) -> list[ModelFamily]:
    """Read one file in upstream's schema.

    Raises:
        ConfigError: the file is not YAML, or a value is not allowed.
    """
    document, notes = read_yaml(file)
    for note in notes:
        log.warning("%s", note)
    if document is None:
        return []
    return [_read_family(str(name), body, file.name) for name, body in _mapping(document, "file", file.name).items()]


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
    check_name("model", model)
    if file_name(model) != model:
        raise ConfigError("model", model, "is no name for a file: Windows keeps it for a device")
    check_name("preset", preset)
    target = Path(folder) if folder is not None else user_dir()
    if target is None:
        raise ConfigError(PRESETS_DIR_VARIABLE, None, "set it to a folder of your own to save presets there")
    bundled = load_families(bundled_dir()).get(model)
    if bundled and preset in bundled.presets and not _same_settings(bundled.presets[preset], config):
        raise ConfigError("preset", preset, f"is the name of a bundled preset of {model}; choose another name")
    file = target / f"{model}.yaml"
    with locked(target):
        document = _with_preset(file, model, preset, config, bundled, overwrite)
        write_text(file, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
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


def config_to_schema(config: PSAConfig) -> dict[str, Any]:
    """A config as the mapping that stands under a preset's name in a file."""
    settings = plain(config)
    body = {key: settings[key] for key in _PRESET_KEYS if settings[key] is not None}
    body["block_size"] = {key: settings[name] for key, name in _BLOCK_KEYS.items()}
    return body


def _preset_files(path: Path) -> list[Path]:
    if path.is_dir():
        return yaml_files(path)
    if not path.is_file():
        raise FileNotFoundError(f"no preset file or folder at {path}")
    return [path]


def _merge(known: ModelFamily | None, new: ModelFamily, file: Path) -> ModelFamily:
    """Add a later file's presets to a model; a name that is taken is kept apart, so that nothing is overridden."""
    if known is None:
        return new
    presets, notes = dict(known.presets), [*known.notes, *new.notes]
    if new.default != known.default:
        notes.append(f"{file.name}: {new.name}: default_attention stays {known.default!r}, not {new.default!r}")
    for name, config in new.presets.items():
        if name in presets and _same_settings(presets[name], config):
            continue
        if name in presets:
            apart = f"{name}@{file.stem}"
            while apart in presets and not _same_settings(presets[apart], config):
                apart += "+"
            notes.append(
                f"{file.name}: {new.name}: preset {name!r} is already there with other settings; "
                f"the one of this file is listed as {apart!r}"
            )
            name = apart
        presets[name] = config
    return dataclasses.replace(known, presets=presets, notes=tuple(notes))


def _same_settings(a: PSAConfig, b: PSAConfig) -> bool:
    """Whether two presets differ in their words at most."""
    return a.replace(description="") == b.replace(description="")


def _read_family(name: str, body: Any, file: str) -> ModelFamily:
    source = f"{file}: {name}"
    family = _mapping(body, "model", source)
    notes = list(_unknown(family, _FAMILY_KEYS, source))
    text_length = family.get("text_length", 0)
    presets: dict[str, PSAConfig] = {}
    for preset, settings in _mapping(family.get("attention_configs"), "attention_configs", source).items():
        where = f"{source}: {preset}"
        presets[str(preset)] = _read_preset(_mapping(settings, "preset", where), text_length, where, notes)
    if not presets:
        raise ConfigError("attention_configs", {}, "must hold at least one preset", source)
    default = str(family.get("default_attention", next(iter(presets))))
    if default not in presets:
        raise ConfigError("default_attention", default, "must be one of " + ", ".join(presets), source)
    scale = _mapping(family.get("video_scale", {}), "video_scale", source)
    notes += _unknown(scale, _SCALE_KEYS, f"{source}: video_scale")
    for key in scale.keys() & set(_SCALE_KEYS):
        if type(scale[key]) is not int or scale[key] < 1:
            raise ConfigError(f"video_scale.{key}", scale[key], "must be a whole number, 1 or more", source)
    return ModelFamily(name, default, dict(scale), text_length, presets, tuple(notes))


def _read_preset(body: Mapping[str, Any], text_length: int, source: str, notes: list[str]) -> PSAConfig:
    settings = {key: value for key, value in body.items() if key in _PRESET_KEYS}
    notes += _unknown(body, (*_PRESET_KEYS, "block_size"), source)
    blocks = _mapping(body.get("block_size", {}), "block_size", source)
    notes += _unknown(blocks, _BLOCK_KEYS, f"{source}: block_size")
    settings |= {name: blocks[key] for key, name in _BLOCK_KEYS.items() if key in blocks}
    with errors_at(source):
        return PSAConfig(text_length=text_length, **settings)


def _mapping(value: Any, key: str, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(key, value, "must be a mapping of names to values", source)
    return value


def _unknown(body: Mapping[str, Any], known: Collection[str], source: str) -> Iterator[str]:
    unknown = [key for key in body if key not in known]
    for key in unknown[:_NAMED]:
        near = difflib.get_close_matches(cut(str(key), _LONGEST_KEY), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield f"{source}: unknown key {shown(key)} is ignored{hint}"
    if len(unknown) > _NAMED:
        yield f"{source}: {len(unknown) - _NAMED:,} more unknown keys are ignored"


def check_name(key: str, name: str) -> None:
    """Raise a ConfigError for a name that cannot be a model's or a preset's."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(key, name, "must be a plain name of at most 100 letters, digits, spaces and . _ - + @")
