"""The scale of a LoRA as diffusers' files state it: in their metadata, where the keys hold none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....settings.errors import ConfigError
from ....settings.words import shown

METADATA_KEY = "lora_adapter_metadata"
_PREFIX = "transformer."
# What peft and diffusers write as a pattern: the name of a layer or its end, or such names with a number for any block.
# A file's own regular expressions are not run: they can be made to take for ever.
_PATTERN = re.compile(r"\^?(?:[\w-]|\\?\.|\\d\+?)+\$?")
_LONGEST_PATTERN, _MOST_PATTERNS = 256, 4096


@dataclass(frozen=True)
class AlphaRule:
    """peft's rule for the alpha of a layer.

    Attributes:
        alpha: of every layer; None for a file that states none, whose LoRAs count in full.
        patterns: alphas of the layers whose name ends in a match.
        by_root: the scale is alpha by the square root of the rank (peft's ``use_rslora``), not by the rank.
    """

    alpha: float | None
    patterns: Mapping[re.Pattern[str], float]
    by_root: bool

    def of(self, layer: str, rank: int) -> float | None:
        """Alpha of a layer in diffusers' name, such that alpha by rank is the scale; None for a scale of 1."""
        alpha = next((x for pattern, x in self.patterns.items() if pattern.fullmatch(layer)), self.alpha)
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
        if len(patterns) > _MOST_PATTERNS:
            raise ValueError(f"alpha_pattern has {len(patterns):,} patterns, {_MOST_PATTERNS:,} are allowed")
        return AlphaRule(
            None if alpha is None else _finite(alpha),
            {_compiled(key): _finite(value) for key, value in patterns.items()},
            bool(settings.get("use_rslora")),
        )
    except (AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(METADATA_KEY, text, f"must be peft's settings of the LoRA as JSON ({error})") from error


def _finite(number: Any) -> float:
    alpha = float(number)
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}")
    return alpha


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > _LONGEST_PATTERN or not _PATTERN.fullmatch(pattern):
        raise ValueError(f"alpha_pattern {shown(pattern)} is no layer's name")
    # As peft takes it: the whole name, or what follows a dot in it.
    return re.compile(rf"(?:.*\.)?(?:{pattern})")
