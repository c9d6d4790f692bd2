"""Calibration files of strangers: whatever stands in one, it is a calibration, or one error that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml

from psa_core import Calibration, ConfigError, Recipe

from .outcome import refused_or_taken
from .strategies import LETTERS, VALUES, spoilt, torn

CORPUS = Path(__file__).with_name("calibrations")
GOOD = Calibration(
    block_m=128,
    block_n=128,
    recipes={
        layer: [Recipe(order=order, estimator="mean", mix="tail", density=0.15) for order in ("Raster", "Tile")]
        for layer in (0, 1)
    },
    errors={0: [0.1, 0.2], 1: [0.3, 0]},
    target_error=0.3,
    model="Wan2.1_14b",
    grid=(21, 30, 52),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrations")


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return GOOD.save(folder / "good.yaml").read_text(encoding="utf-8")


def load(folder: Path, text: str) -> None:
    """Load a file of this text; what is refused names the file."""
    (folder / "odd.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with refused_or_taken(naming="odd.yaml"):
        Calibration.load(folder / "odd.yaml")


@pytest.mark.parametrize("file", sorted(CORPUS.iterdir()), ids=lambda file: file.stem)
def test_the_corpus(file: Path) -> None:
    with refused_or_taken(), pytest.raises(ConfigError, match=file.name):
        Calibration.load(file)


@hypothesis.settings(max_examples=75)
@hypothesis.given(data=st.data())
def test_one_thing_wrong(folder: Path, text: str, data: st.DataObject) -> None:
    load(folder, yaml.dump(data.draw(spoilt(yaml.safe_load(text))), allow_unicode=True))


@hypothesis.given(data=st.data())
def test_torn_files(folder: Path, text: str, data: st.DataObject) -> None:
    load(folder, data.draw(torn(text)))


@hypothesis.given(text=st.one_of(LETTERS, VALUES.map(lambda value: yaml.dump(value, allow_unicode=True))))
def test_anything(folder: Path, text: str) -> None:
    load(folder, text)


@pytest.mark.parametrize("many", [["0"] * 20_000, ["{}"] * 20_000])
def test_long_lists_are_not_even_read(folder: Path, text: str, many: Any) -> None:
    load(folder, f"{text}\nmore: [{', '.join(many)}]")
