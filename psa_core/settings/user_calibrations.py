"""Calibrations in a folder of the user's own: a file each, and its name without ending is the calibration's."""

from __future__ import annotations

from pathlib import Path

from .calibration import Calibration
from .errors import ConfigError
from .files import locked
from .user_presets import check_file_name
from .yaml_files import yaml_files

_ENDING = ".yaml"


def calibration_files(folder: Path) -> dict[str, Path]:
    """The calibration files in a folder by name. It need not exist."""
    files = yaml_files(folder)
    # Of one name with both endings, the file that is saved to.
    return {file.stem: file for file in files} | {file.stem: file for file in files if file.suffix == _ENDING}


def load_calibration(name: str, folder: Path) -> Calibration:
    """The calibration of a name, which is one of :func:`calibration_files`: no path leads out of the folder.

    Raises:
        ConfigError: there is none, or its file is not valid; the message names it.
    """
    files = calibration_files(folder)
    if name not in files:
        there = f"has {', '.join(files)}" if files else "is empty: Save Calibration writes into it"
        raise ConfigError("calibration", name, f"there is no such file; {folder.parent.name}/{folder.name} {there}")
    return Calibration.load(files[name])


def save_calibration(
    name: str, calibration: Calibration, folder: Path, *, overwrite: bool = False
) -> tuple[Path, bool]:
    """Write a calibration to ``<folder>/<name>.yaml``, unless the file holds it already. The folder is made.

    Processes that save at the same time wait for each other.

    Args:
        overwrite: replace another that has this name; off, that is an error.

    Returns:
        The file, and whether it was written.

    Raises:
        ConfigError: a name that is none for a file, or is taken, or more heads than a file holds.
        WriteError: the file cannot be written; it is as it was.
    """
    check_file_name("name", name)
    file = folder / f"{name}{_ENDING}"
    with locked(folder):
        if file.exists():
            if _holds(file, calibration):
                return file, False
            if not overwrite:
                taken = "there is another calibration of this name; turn overwrite on, or choose another name"
                raise ConfigError("name", name, taken)
        return calibration.save(file), True


def _holds(file: Path, calibration: Calibration) -> bool:
    try:
        return Calibration.load(file) == calibration
    except ConfigError:
        return False
