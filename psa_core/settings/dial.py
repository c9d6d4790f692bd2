"""The dial: how near to dense attention, in one word. Its numbers, which measurements settle, stand here alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import PSAConfig

# What all of them share; densities, errors and times were measured with these blocks.
_COMMON: Mapping[str, Any] = {
    "mask_mode": "calibrated",
    "block_m": 128,
    "block_n": 128,
    "map_steps": 4,
    "precision": "auto",
    "early_density": 1.33,
}
_DIAL: Mapping[str, Mapping[str, Any]] = {
    "fast": {"target_density": 0.08, "warmup_steps": "20%"},
    "balanced": {"target_density": 0.15, "warmup_steps": "25%"},
    "near_dense": {"target_density": 0.25, "warmup_steps": "25%"},
}
QUALITIES = tuple(_DIAL)


def preset_of(quality: str) -> str:
    """The name under which every model has a quality as a preset."""
    return f"auto_{quality}"


DIAL_PRESETS = tuple(map(preset_of, QUALITIES))


def dial_presets(default: PSAConfig) -> dict[str, PSAConfig]:
    """The dial as presets of one model.

    Args:
        default: the model's default preset: its text tokens, and the least tokens at which sparse attention pays off.

    Returns:
        ``{preset: PSAConfig}``, fastest first.
    """
    model: dict[str, Any] = {"text_length": default.text_length, "min_tokens": default.min_tokens}
    words = "The dial at {}, for any number of steps"
    return {
        preset_of(quality): PSAConfig(**_COMMON, **settings, **model, description=words.format(quality))
        for quality, settings in _DIAL.items()
    }
