"""The scale of a LoRA as diffusers' files state it: in their metadata, where the keys hold none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ....settings.errors import ConfigError

METADATA_KEY = "lora_adapter_metadata"
_PREFIX = "transformer."


@dataclass(frozen=True)
class AlphaRule:
    """peft's rule for the alpha of a layer.

    Attributes:
        alpha: of every layer; None for a file that states none, whose LoRAs count in full.
        patterns: alphas of the layers whose name ends in a match of a regular expression.
        by_root: the scale is alpha by the square root of the rank (peft's ``use_rslora``), not by the rank.
    """

    alpha: float | None
    patterns: Mapping[str, float]
    by_root: bool

    def of(self, layer: str, rank: int) -> float | None:
        """Alpha of a layer in diffusers' name, such that alpha by rank is the scale; None for a scale of 1."""
        alpha = next((x for key, x in self.patterns.items() if re.fullmatch(rf"(.*\.)?({key})", layer)), self.alpha)
        return alpha * math.sqrt(rank) if alpha is not None and self.by_root else alpha


def read_alpha(metadata: Mapping[str, str] | None) -> AlphaRule:
    """The rule in a safetensors file's metadata.

    Raises:
        ConfigError: diffusers' metadata are there and are not what diffusers writes.
    """
    text = (metadata or {}).get(METADATA_KEY) or "{}"
    try:
        settings = {key.removeprefix(_PREFIX): value for key, value in json.loads(text).items()}
        alpha, patterns = settings.get("lora_alpha"), settings.get("alpha_pattern") or {}
        return AlphaRule(
            None if alpha is None else float(alpha),
            {re.compile(key).pattern: float(value) for key, value in patterns.items()},
            bool(settings.get("use_rslora")),
        )
    except (AttributeError, TypeError, ValueError, re.error) as error:
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        raise ConfigError(METADATA_KEY, shown, f"must be peft's settings of the LoRA as JSON ({error})") from error
