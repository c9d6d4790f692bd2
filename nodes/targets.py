"""What calibrated attention aims at, as the two numbers of a Preset Loader; 0 stands for the one not aimed at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..psa_core.settings.config import DEFAULT_TARGET_DENSITY, PSAConfig
from ..psa_core.settings.errors import ConfigError

CALIBRATED = "calibrated"
DENSITY, ERROR = TARGETS = ("target_density", "target_error")
# Where the mode aims at nothing: what it aims at when the mode is changed.
USUAL = {DENSITY: DEFAULT_TARGET_DENSITY, ERROR: 0.0}


def targets_from_config(config: PSAConfig) -> dict[str, float]:
    """The numbers of a config."""
    if config.mask_mode != CALIBRATED:
        return USUAL
    return {key: getattr(config, key) or 0.0 for key in TARGETS}


def targets_from_widgets(widgets: Mapping[str, Any]) -> dict[str, Any]:
    """The targets of a ``PSAConfig``: those of the numbers in a calibrated mode, none in another.

    Raises:
        ConfigError: the numbers say two targets, or none.
    """
    if widgets["mask_mode"] != CALIBRATED:
        return {}
    density, error = (widgets[key] for key in TARGETS)
    if density and error:
        allowed = f"must not stand beside target_density = {density:g}: set the one that you do not mean to 0"
        raise ConfigError(ERROR, error, allowed)
    if not density and not error:
        raise ConfigError(DENSITY, density, "must be above 0 where target_error is 0")
    return {DENSITY: density or None, ERROR: error or None}


def with_both(widgets: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a prompt in which a target alone takes the place of the other, which the preset may have."""
    both = dict(widgets)
    for key, other in ((DENSITY, ERROR), (ERROR, DENSITY)):
        if widgets.get(key):
            both.setdefault(other, 0.0)
    return both
