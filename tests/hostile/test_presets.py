"""Preset files of strangers: whatever stands in one, it costs one error of its own at most, and no other file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml

from psa_core.settings.presets import bundled_dir, load_families
from psa_core.settings.user_presets import save_preset

from .outcome import refused_or_taken
from .strategies import LETTERS, VALUES, spoilt, torn

CORPUS = Path(__file__).with_name("presets")
GOOD = "Mine:\n  attention_configs:\n    dense: {type: dense}\n"
WAN = (bundled_dir() / "Wan2.1_1.3b.yaml").read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = yaml.safe_load(WAN)
DOCUMENT["Wan2.1_1.3b"]["attention_configs"]["mine"] = {
    "type": "psa",
    "warmup_steps": "25%",
    "schedule": {"last_dense": "10%", "dense_layers": "0, 1", "curve": "linear", "end": {1: [0, 0.1], 0: [0.1, 1]}},
    "radial": {"mode": "intersect", "decay_factor": 0.5, "scene_boundaries": "0, 8, 21", "scene_adjacency": "own"},
}


def load_beside_a_good_one(folder: Path, text: str) -> None:
    """Load the file and one that is right: that one's model is there, and errors are those of the other file."""
    (folder / "good.yaml").write_text(GOOD)
    (folder / "odd.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    errors: list[Any] = []
    with refused_or_taken():
        families = load_families(folder, errors=errors)
        assert "Mine" in families
    assert len(errors) <= 1
    for error in errors:
        assert "odd.yaml" in str(error)
        assert len(str(error)) < 2000
        str(error).encode()


@pytest.mark.parametrize("file", sorted(CORPUS.iterdir()), ids=lambda file: file.stem)
def test_the_corpus(tmp_path: Path, file: Path) -> None:
    load_beside_a_good_one(tmp_path, file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("presets")


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of odd keys are told of nowhere."""
    logger = logging.getLogger("psa_core")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


@hypothesis.settings(max_examples=75)
@hypothesis.given(document=spoilt(DOCUMENT))
def test_one_thing_wrong(folder: Path, document: Any) -> None:
    load_beside_a_good_one(folder, yaml.dump(document, allow_unicode=True))


@hypothesis.given(text=torn(WAN))
def test_torn_files(folder: Path, text: str) -> None:
    load_beside_a_good_one(folder, text)


@hypothesis.given(text=st.one_of(LETTERS, VALUES.map(lambda value: yaml.dump(value, allow_unicode=True))))
def test_anything(folder: Path, text: str) -> None:
    load_beside_a_good_one(folder, text)


@hypothesis.settings(max_examples=50)
@hypothesis.given(model=LETTERS, preset=LETTERS)
def test_names_to_save_under(folder: Path, model: str, preset: str) -> None:
    config = load_families(bundled_dir())["Wan2.1_14b"].presets["psa_balanced"]
    with refused_or_taken():
        saved = save_preset(model, preset, config, folder / "saved")
        assert saved.parent == folder / "saved"
