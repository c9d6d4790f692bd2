"""The presets that nodes list: the bundled ones, and those in the ComfyUI user's own folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import folder_paths

from ..psa_core.settings.errors import ConfigError
from ..psa_core.settings.preset_schema import ModelFamily
from ..psa_core.settings.presets import load_families
from ..psa_core.settings.yaml_files import fingerprint

DEFAULT_FAMILY = "Wan2.1_1.3b"


def user_presets_dir() -> Path:
    """Where a ComfyUI user keeps preset files."""
    return Path(folder_paths.get_user_directory()) / "psa_presets"


def families() -> tuple[dict[str, ModelFamily], list[ConfigError]]:
    """Bundled and user presets of models that make videos; a user's file that is not valid costs only its own."""
    folder = user_presets_dir()
    return _families(folder, fingerprint(folder))


# ComfyUI asks for a node's schema several times a prompt: files are parsed, and what is odd in them said, once.
@lru_cache(maxsize=1)
def _families(folder: Path, _contents: bytes) -> tuple[dict[str, ModelFamily], list[ConfigError]]:
    errors: list[ConfigError] = []
    found = load_families(user=folder, errors=errors)
    return {name: family for name, family in found.items() if not family.host}, errors
