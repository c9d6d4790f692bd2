"""What recipes are chosen for: a density or an error, never both."""

from __future__ import annotations

from typing import Any

from .errors import ConfigError
from .validation import above_zero


def read_targets(target_density: Any, target_error: Any) -> tuple[float | None, float | None]:
    """Both targets as floats or None, one of them at most.

    Raises:
        ConfigError: one is no number above 0 and at most 1, or both are given.
    """
    density = None if target_density is None else above_zero("target_density", target_density)
    error = None if target_error is None else above_zero("target_error", target_error)
    if density is not None and error is not None:
        allowed = f"must not stand beside target_density = {density:g}: leave one of them out"
        raise ConfigError("target_error", error, allowed)
    return density, error
