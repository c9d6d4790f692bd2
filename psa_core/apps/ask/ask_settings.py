"""What ``psa ask`` does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...settings.config import PSAConfig
from ...settings.errors import ConfigError
from ...settings.presets import load_families


class AskSettings(NamedTuple):
    """What to ask, and of whom.

    Attributes:
        video: a file, or a folder of pictures.
        model: a folder, or a hub id.
        preset: its name; None for the model's default.
        frames: of the video, at most.
        tokens: of an answer, at most.
        backend, min_tokens: in place of the preset's; None leaves it.
    """

    video: Path
    question: str
    model: str
    preset: str | None
    frames: int
    tokens: int
    backend: str
    min_tokens: int | None

    def config(self, family: str) -> PSAConfig:
        """Settings of a model, by its presets' name.

        Raises:
            ConfigError: it has no such preset.
        """
        presets = load_families()[family]
        name = presets.default if self.preset is None else self.preset
        if name not in presets.presets:
            raise ConfigError("--preset", name, f"{family} has " + ", ".join(presets.presets))
        config = presets.presets[name]
        return config if self.min_tokens is None else config.replace(min_tokens=self.min_tokens)
