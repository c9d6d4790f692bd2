"""Calibrations in a folder of the user's own: names, what is kept, and what stands beside presets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from psa_core import Calibration, ConfigError, Recipe
from psa_core.settings.preset_schema import read_preset_file
from psa_core.settings.presets import load_families
from psa_core.settings.user_calibrations import calibration_files, load_calibration, save_calibration

RECIPE = Recipe(order="Gilbert", estimator="sampled_sum", mix="pyramid", density=0.15)
MINE = Calibration(block_m=128, block_n=64, recipes={0: [RECIPE]}, errors={0: [0.1]})
OTHER = dataclasses.replace(MINE, errors={0: [0.2]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "psa_presets" / "calibrations"


def test_what_is_saved_is_listed_and_loads(folder: Path) -> None:
    assert calibration_files(folder) == {}
    assert save_calibration("mine", MINE, folder) == (folder / "mine.yaml", True)
    assert save_calibration("mine", MINE, folder) == (folder / "mine.yaml", False)
    assert calibration_files(folder) == {"mine": folder / "mine.yaml"}
    assert load_calibration("mine", folder) == MINE


@pytest.mark.parametrize("held", ["another", "broken"])
def test_what_is_there_is_replaced_only_when_asked(folder: Path, held: str) -> None:
    file = OTHER.save(folder / "mine.yaml")
    if held == "broken":
        file.write_text("not YAML: [")
    before = file.read_text()
    with pytest.raises(ConfigError, match=r"^name = 'mine': there is another .*turn overwrite on"):
        save_calibration("mine", MINE, folder)
    assert file.read_text() == before
    save_calibration("mine", MINE, folder, overwrite=True)
    assert load_calibration("mine", folder) == MINE


@pytest.mark.parametrize("name", ["", "../mine", "a/b", "a\\b", "mine.", "con", "COM1.x", "n" * 101])
def test_names_that_are_none_for_files_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name = "):
        save_calibration(name, MINE, folder)
    assert not folder.exists()


def test_of_one_name_with_both_endings_the_one_that_is_saved_to_holds(folder: Path) -> None:
    for ending, calibration in ((".yml", OTHER), (".yaml", MINE)):
        calibration.save(folder / f"both{ending}")
    OTHER.save(folder / "short.yml")
    assert list(calibration_files(folder)) == ["both", "short"]
    assert load_calibration("both", folder) == MINE
    assert load_calibration("short", folder) == OTHER


@pytest.mark.parametrize("name", ["../outside", "outside", "", "calibrations/mine"])
def test_only_what_is_listed_loads(folder: Path, name: str) -> None:
    MINE.save(folder.parent / "outside.yaml")
    with pytest.raises(ConfigError, match=r"there is no such file; psa_presets/calibrations is empty"):
        load_calibration(name, folder)
    MINE.save(folder / "mine.yaml")
    with pytest.raises(ConfigError, match=r"there is no such file; psa_presets/calibrations has mine$"):
        load_calibration(name, folder)


def test_the_presets_beside_it_do_not_see_it(folder: Path) -> None:
    before = load_families(user=folder.parent)
    save_calibration("mine", MINE, folder)
    assert load_families(user=folder.parent) == before


def test_a_calibration_among_presets_is_named_as_one(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"file = 'mine.yaml': is a calibration, not presets: move it"):
        read_preset_file(MINE.save(folder.parent / "mine.yaml"))
