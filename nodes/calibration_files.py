"""The calibrations that nodes list: those in the ComfyUI user's own folder."""

from __future__ import annotations

from pathlib import Path

from ..psa_core.settings.user_calibrations import calibration_files
from .preset_files import user_presets_dir


def user_calibrations_dir() -> Path:
    """Where a ComfyUI user keeps calibrations: below the presets, whose folder holds nothing else."""
    return user_presets_dir() / "calibrations"


def calibration_names() -> list[str]:
    """Names to choose from."""
    return list(calibration_files(user_calibrations_dir()))
