"""Endings of a LoRA file's keys: which part of which layer's LoRA a tensor is."""

from __future__ import annotations

import re

# peft writes an adapter's name before or in place of "weight" when whole models are saved.
_ADAPTER = r"(?:\.(?!weight$|bias$)[^.]+)?"
_WEIGHT = r"(?:\.weight)?"
# The two factors, alpha, DoRA's norms by LyCORIS and by peft, and differences of a whole weight and bias.
_ENDINGS = {
    "down": r"(?:\.lora_(?:A|down)|[._]lora\.down|\.lora_linear_layer\.down)" + _ADAPTER + _WEIGHT,
    "up": r"(?:\.lora_(?:B|up)|[._]lora\.up|\.lora_linear_layer\.up)" + _ADAPTER + _WEIGHT,
    "alpha": r"\.alpha",
    "dora_scale": r"\.dora_scale",
    "magnitude": r"\.lora_magnitude_vector" + _ADAPTER + _WEIGHT,
    "diff": r"\.diff",
    "diff_b": r"\.diff_b",
}
_PATTERNS = {part: re.compile("(.+?)" + ending) for part, ending in _ENDINGS.items()}


def split_key(key: str) -> tuple[str, str] | None:
    """The layer's name and the name of the part, which is a key of the endings; None for no part of a LoRA."""
    for part, pattern in _PATTERNS.items():
        found = pattern.fullmatch(key)
        if found is not None:
            return found[1], part
    return None
