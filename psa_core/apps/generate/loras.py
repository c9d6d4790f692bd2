"""LoRAs of a command line: a file or a folder with one, for which of two experts, and how strong."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...settings.errors import ConfigError

# The experts of a model with two: the first denoises at high noise levels.
EXPERTS = {"high": "transformer", "low": "transformer_2"}
_STRENGTH = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+))")


class Lora(NamedTuple):
    """One LoRA.

    Attributes:
        text: as it was given.
        path: a file, or a folder with one, in diffusers format.
        expert: ``"high"`` or ``"low"``; "" for all that there are.
        strength: what its changes are multiplied with.
    """

    text: str
    path: Path
    expert: str = ""
    strength: float = 1.0

    @property
    def said(self) -> str:
        """Its name, with what is special of it."""
        expert = f" in the {self.expert} expert" if self.expert else ""
        return self.path.name + (f" at {self.strength:g}" if self.strength != 1 else "") + expert

    @property
    def file(self) -> Path:
        """Its file.

        Raises:
            ConfigError: there is none, or more than one.
        """
        if self.path.is_file():
            return self.path
        files = sorted(self.path.glob("*.safetensors"))
        if len(files) != 1:
            there = self.path.is_dir()
            held = "which holds more than one" if files else "which holds none" if there else "which is not there"
            what = f"must be a .safetensors file, or a folder with one, {held}"
            raise ConfigError("--lora", self.text, what)
        return files[0]


def read_loras(words: Sequence[str], experts: int) -> tuple[Lora, ...]:
    """LoRAs such as ``FILE``, ``FILE:0.8`` and ``high=FILE:0.8``.

    Args:
        experts: of the model.

    Raises:
        ConfigError: a file is not there, or the model has no such experts.
    """
    loras = tuple(_read(word) for word in words)
    for lora in loras:
        if lora.expert and experts == 1:
            raise ConfigError("--lora", lora.text, f"leave out {lora.expert}=: the model has one expert")
        if not math.isfinite(lora.strength):
            raise ConfigError("--lora", lora.text, "must have a strength that is a number")
        lora.file  # noqa: B018
    return loras


def _read(word: str) -> Lora:
    # A path as it is, whatever is in it.
    if Path(word).exists():
        return Lora(word, Path(word))
    expert, _, rest = word.partition("=")
    if expert not in EXPERTS:
        expert, rest = "", word
    parts = None if Path(rest).exists() else _STRENGTH.fullmatch(rest)
    return Lora(word, Path(parts[1] if parts else rest), expert, float(parts[2]) if parts else 1.0)
