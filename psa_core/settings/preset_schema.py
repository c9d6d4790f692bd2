"""Presets in upstream's schema <-> PSAConfig.

A preset file maps model names to families::

    Wan2.1_14b:
      default_attention: psa_balanced
      video_scale: {width_divisor: 16, height_divisor: 16, depth_divisor: 4}
      text_length: 0
      attention_configs:
        psa_balanced: {type: psa, block_size: {m: 128, n: 128, tile_n: 32}, mask_ratios: {...}, ...}

Files are data: read with ``yaml.safe_load``, never executed.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .calibration_file import VERSION_KEY
from .config import PSAConfig
from .dial import DIAL_PRESETS
from .errors import ConfigError, errors_at
from .orders import DEFAULT_CANDIDATE_ORDERS
from .validation import plain
from .words import cut, shown
from .yaml_files import read_yaml

log = logging.getLogger(__name__)

# Of unknown keys in one mapping, and their letters that are compared with known ones.
_NAMED, _LONGEST_KEY = 10, 40
_SIZES = ("heads", "head_dim")
_FAMILY_KEYS = ("host", "default_attention", "video_scale", "text_length", *_SIZES, "attention_configs")
_HOSTS = ("", "transformers")
_BLOCK_KEYS = {"m": "block_m", "n": "block_n", "tile_n": "tile_n"}
_SCALE_KEYS = ("width_divisor", "height_divisor", "depth_divisor")
# text_length belongs to the family, the block sizes stand under block_size.
_PRESET_KEYS = tuple(
    f.name for f in dataclasses.fields(PSAConfig) if f.name not in ("text_length", *_BLOCK_KEYS.values())
)
# What releases before did not know and did all the same: left out, so that folders which they began go on.
_UNSAID = {
    "map_steps": 1,
    "precision": "bf16",
    "dense_backend": "model",
    "max_extra_memory": 0.0,
    "early_density": 1.0,
    "candidate_orders": plain(DEFAULT_CANDIDATE_ORDERS),
}


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
        heads, head_dim: attention heads, and numbers a head, which ``psa doctor`` measures; 0 when not said.
        host: the only one that has the model, ``"transformers"``; empty for a model that makes videos.
    """

    name: str
    default: str
    video_scale: Mapping[str, int] = field(default_factory=dict)
    text_length: int = 0
    presets: Mapping[str, PSAConfig] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    heads: int = 0
    head_dim: int = 0
    host: str = ""


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
    if isinstance(document, Mapping) and VERSION_KEY in document:
        raise ConfigError("file", file.name, "is a calibration, not presets: move it into the folder calibrations")
    return [_read_family(str(name), body, file.name) for name, body in _mapping(document, "file", file.name).items()]


def config_to_schema(config: PSAConfig) -> dict[str, Any]:
    """A config as the mapping that stands under a preset's name in a file."""
    settings = plain(config)
    body = {key: settings[key] for key in _PRESET_KEYS if settings[key] not in (None, _UNSAID.get(key))}
    body["block_size"] = {key: settings[name] for key, name in _BLOCK_KEYS.items()}
    return body


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
    allowed = (*presets, *DIAL_PRESETS)
    if default not in allowed:
        raise ConfigError("default_attention", default, "must be one of " + ", ".join(allowed), source)
    scale = _mapping(family.get("video_scale", {}), "video_scale", source)
    notes += _unknown(scale, _SCALE_KEYS, f"{source}: video_scale")
    for key in scale.keys() & set(_SCALE_KEYS):
        _check_size(f"video_scale.{key}", scale[key], source)
    sizes = {key: family[key] for key in _SIZES if key in family}
    for key, size in sizes.items():
        _check_size(key, size, source)
    host = family.get("host", "")
    if host not in _HOSTS:
        raise ConfigError("host", host, "must be transformers, or left out", source)
    return ModelFamily(name, default, dict(scale), text_length, presets, tuple(notes), **sizes, host=host)


def _check_size(key: str, size: Any, source: str) -> None:
    if type(size) is not int or size < 1:
        raise ConfigError(key, size, "must be a whole number, 1 or more", source)


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
