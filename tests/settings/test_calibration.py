"""Calibrations: what is accepted, what a file brings back, and what is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from psa_core import Calibration, ConfigError, PSAConfig, Recipe

from ..support.strategies import calibrations

GILBERT = Recipe(order="Gilbert", estimator="sampled_sum", mix="pyramid", density=0.15)
RASTER = Recipe(order="Raster", estimator="sampled_max", mix="level 1", density=0.15)
TWO_LAYERS = Calibration(
    block_m=128,
    block_n=64,
    recipes={0: [GILBERT, RASTER, GILBERT], 7: [RASTER] * 3},
    errors={0: [0.1, 0.25, 0.125], 7: [0.5, 0, 1e-5]},
    target_density=0.15,
    model="Wan2.1_14b",
    grid=(21, 30, 52),
)
FIELDS = {field.name: getattr(TWO_LAYERS, field.name) for field in dataclasses.fields(TWO_LAYERS)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrations") / "mine.yaml"


@hypothesis.given(calibrations())
def test_a_file_brings_back_what_was_saved(file: Path, calibration: Calibration) -> None:
    assert calibration.save(file) == file
    assert Calibration.load(file) == calibration


@hypothesis.given(calibrations())
def test_copies_are_equal_and_hash_alike(calibration: Calibration) -> None:
    for other in (pickle.loads(pickle.dumps(calibration)), copy.deepcopy(calibration)):
        assert other == calibration
        assert hash(other) == hash(calibration)


@hypothesis.given(calibrations())
def test_a_layer_keeps_its_recipes_and_what_they_came_from(calibration: Calibration) -> None:
    assert list(calibration.recipes) == sorted(calibration.recipes)
    for layer, recipes in calibration.recipes.items():
        alone = calibration.layer(layer)
        assert dict(alone.recipes) == {layer: recipes}
        assert dict(alone.errors) == {layer: calibration.errors[layer]}
        assert dataclasses.replace(alone, recipes=calibration.recipes, errors=calibration.errors) == calibration


def test_some_heads_keep_their_recipes() -> None:
    part = TWO_LAYERS.part(1, 2)
    assert dict(part.recipes) == {0: (RASTER, GILBERT), 7: (RASTER, RASTER)}
    assert dict(part.errors) == {0: (0.25, 0.125), 7: (0.0, 1e-5)}
    assert dataclasses.replace(part, recipes=TWO_LAYERS.recipes, errors=TWO_LAYERS.errors) == TWO_LAYERS
    with pytest.raises(ConfigError, match="heads = 4: the calibration has recipes for 3 heads: it is of another model"):
        TWO_LAYERS.part(2, 2)


def test_a_file_says_each_recipe_once(file: Path) -> None:
    document = yaml.safe_load(TWO_LAYERS.save(file).read_text(encoding="utf-8"))
    assert document["recipes"] == [dataclasses.asdict(GILBERT), dataclasses.asdict(RASTER)]
    assert document["heads"] == {0: [0, 1, 0], 7: [1, 1, 1]}
    assert document["errors"] == {0: [0.1, 0.25, 0.125], 7: [0.5, 0.0, 1e-5]}
    assert "target_error" not in document


def test_texts_with_line_breaks_of_every_kind_come_back(file: Path) -> None:
    odd = dataclasses.replace(TWO_LAYERS, model="a\x85b\u2028c\n\x85", description="\r\n \u2029")
    assert Calibration.load(odd.save(file)) == odd


def test_is_frozen_in_depth() -> None:
    heads = [GILBERT]
    calibration = Calibration(block_m=128, block_n=128, recipes={0: heads}, errors={0: [0.1]})
    heads[0] = RASTER
    assert calibration.recipes[0] == (GILBERT,)
    with pytest.raises(TypeError):
        calibration.recipes[0] = (RASTER,)  # type: ignore[index]


def test_the_largest_models_fit_into_a_file(file: Path) -> None:
    recipes = [dataclasses.replace(GILBERT, density=(number + 1) / 100) for number in range(40)]
    errors = [0.1 + head / 1000 for head in range(40)]
    large = dataclasses.replace(
        TWO_LAYERS, recipes=dict.fromkeys(range(60), recipes), errors=dict.fromkeys(range(60), errors)
    )
    assert Calibration.load(large.save(file)) == large


def test_more_heads_than_a_file_holds_are_refused_before_it_is_written(tmp_path: Path) -> None:
    recipes, errors = dict.fromkeys(range(100), [GILBERT] * 50), dict.fromkeys(range(100), [0.1] * 50)
    with pytest.raises(ConfigError, match=r"recipes = 'of 100 layers': too many to save: a file of 10,\d+ values"):
        dataclasses.replace(TWO_LAYERS, recipes=recipes, errors=errors).save(tmp_path / "large.yaml")
    assert not list(tmp_path.iterdir())


class TestFits:
    def test_what_it_was_made_for(self) -> None:
        for layer in (None, 0, 7):
            TWO_LAYERS.check_fits(PSAConfig(block_n=64), 3, layer)

    @pytest.mark.parametrize(
        ("config", "heads", "layer", "words"),
        [
            (PSAConfig(block_n=128), 3, 0, r"block_n = 128: the calibration was made with 64: set that"),
            (PSAConfig(block_n=64, block_m=64), 3, 0, r"block_m = 64: the calibration was made with 128"),
            (PSAConfig(block_n=64), 12, 0, r"heads = 12: the calibration has recipes for 3"),
            (PSAConfig(block_n=64), 3, 1, r"layer = 1: the calibration has recipes of 2 layers, from 0 to 7, and none"),
        ],
    )
    def test_refusals_name_what_differs(self, config: PSAConfig, heads: int, layer: int, words: str) -> None:
        with pytest.raises(ConfigError, match=f"^{words}"):
            TWO_LAYERS.check_fits(config, heads, layer)

    def test_tiles_count_where_a_recipe_has_them(self) -> None:
        other = PSAConfig(block_n=64, tile_size=(4, 4, 4))
        TWO_LAYERS.check_fits(other, 3)
        recipes = {**TWO_LAYERS.recipes, 7: [RASTER, dataclasses.replace(RASTER, order="Tile"), RASTER]}
        tiled = dataclasses.replace(TWO_LAYERS, recipes=recipes)
        tiled.check_fits(PSAConfig(block_n=64), 3)
        with pytest.raises(
            ConfigError, match=r"^tile_size = \(4, 4, 4\): the calibration was made with \(2, 8, 8\): set"
        ):
            tiled.check_fits(other, 3)
        dataclasses.replace(tiled, tile_size=(4, 4, 4)).check_fits(other, 3)

    def test_there_is_no_layer_that_was_not_calibrated(self) -> None:
        with pytest.raises(ConfigError, match=r"^layer = 3: .* none for this"):
            TWO_LAYERS.layer(3)


# Each with the key, and some words of what is allowed.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"block_m": 32}, "block_m", "64, 128"),
    ({"block_n": "64"}, "block_n", "32, 64, 128"),
    ({"target_error": 0.1}, "target_error", "leave one of them out"),
    ({"target_density": 2}, "target_density", "at most 1"),
    ({"model": None}, "model", "a text"),
    ({"description": 7}, "description", "a text"),
    ({"grid": (21, 30)}, "grid", "frames, height, width"),
    ({"grid": (21, 30, 0)}, "grid", "1 or more"),
    ({"tile_size": (2, 8)}, "tile_size", "frames, height, width"),
    ({"text_length": -1}, "text_length", "0 or more"),
    ({"recipes": {}}, "recipes", "layers"),
    ({"recipes": [GILBERT]}, "recipes", "layers"),
    ({"recipes": {-1: [GILBERT]}}, "layer", "0 or more"),
    ({"recipes": {1000: [GILBERT]}}, "layer", "from 0 to 999"),
    ({"recipes": {"0": [GILBERT]}}, "layer", "whole number"),
    ({"recipes": {0: []}}, "recipes.0", "one at least"),
    ({"recipes": {0: GILBERT}}, "recipes.0", "for each head"),
    ({"recipes": {0: [GILBERT, "Gilbert"]}}, "recipes.0", "a Recipe for each head"),
    ({"recipes": {0: [GILBERT] * 3, 7: [GILBERT] * 2}}, "layer 7", "as many as layer 0, which has 3"),
    ({"errors": [0.1]}, "errors", "layers"),
    ({"errors": {0: [0.1] * 3}}, "layer", "has no errors"),
    ({"errors": {0: [0.1] * 3, 7: [0.1] * 3, 8: [0.1] * 3}}, "layer", "has no recipes"),
    ({"errors": {0: [0.1] * 3, 7: [0.1] * 4}}, "errors.7", "each of 3 heads"),
    ({"errors": {0: "0.1", 7: [0.1] * 3}}, "errors.0", "each of 3 heads"),
    ({"errors": {0: [0.1] * 3, 7: [0.1, -0.1, 0]}}, "errors.7", "from 0 on"),
    ({"errors": {0: [0.1, float("nan"), 0], 7: [0.1] * 3}}, "errors.0", "from 0 on"),
    ({"errors": {0: [0.1, float("inf"), 0], 7: [0.1] * 3}}, "errors.0", "from 0 on"),
    ({"errors": {0: [0.1, 10**400, 0], 7: [0.1] * 3}}, "errors.0", "from 0 on"),
    ({"errors": {0: [True, 0, 0], 7: [0.1] * 3}}, "errors.0", "number"),
]


@pytest.mark.parametrize(("changes", "key", "allowed"), REFUSED)
def test_refusals_name_the_key(changes: dict[str, Any], key: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Calibration(**(FIELDS | changes))
    assert caught.value.key == key
    assert allowed in caught.value.allowed


class TestFiles:
    @pytest.fixture
    def document(self, file: Path) -> dict[str, Any]:
        return yaml.safe_load(TWO_LAYERS.save(file).read_text(encoding="utf-8"))

    @pytest.mark.parametrize(
        ("way", "value", "words"),
        [
            (["psa_calibration"], 2, r"psa_calibration = 2: was made by a newer release"),
            (["psa_calibration"], 0, r"psa_calibration = 0: must be 1"),
            (["psa_calibration"], True, r"psa_calibration = True: must be 1"),
            (["recipes"], {}, r"recipes = \{\}: must be a list"),
            (["recipes", 1, "order"], "Hilbert", r"recipes\.1\.order = 'Hilbert': must be one of Raster"),
            (["recipes", 1, "speed"], 7, r"recipes\.1\.speed = 7: is unknown; there are order, estimator"),
            (["recipes", 0], None, r"recipes\.0 = None: must be a mapping"),
            (["recipes", 0], {"order": "Tile"}, r"recipes\.0\.estimator = None: is missing"),
            (["heads"], [[0]], r"heads = \[\[0\]\]: must map layers"),
            (["heads", 7], 1, r"heads\.7 = 1: must be a list"),
            (["heads", 7, 2], 2, r"heads\.7 = 2: must be the number of one of 2 recipes"),
            (["heads", 7, 2], -1, r"heads\.7 = -1: must be the number of one of 2 recipes"),
            (["heads", 7, 2], True, r"heads\.7 = True: must be the number"),
            (["errors", 7, 2], float("nan"), r"errors\.7 = nan: must be a relative error"),
            (["errors", 7, 2], "1e-05", r"errors\.7 = '1e-05': .*; this is a text: .* in YAML write 1e-2 as 1\.0e-2"),
            (["target_density"], "0.15", r"target_density = '0\.15': .*; this is a text: leave out quotation marks"),
            (["heads"], {}, r"heads = \{\}: must map layers"),
            (["heads", "7"], [1, 1, 1], r"heads = '7': is no layer: must be a whole number, without quotation marks"),
            (["errors", "7"], [1, 1, 1], r"errors = '7': is no layer: must be a whole number"),
            (["heads", 8], [1, 1, 1], r"errors\.8 = None: is missing: heads has this layer"),
            (["errors", 8], [1, 1, 1], r"heads\.8 = None: is missing: errors has this layer"),
            (["heads", 7], [1, 1], r"heads\.7 = \[1, 1\]: must have as many numbers as heads\.0, which has 3"),
            (["block_n"], 7, r"block_n = 7: must be one of 32"),
            (["blocks"], 7, r"blocks = 7: is unknown; there are block_m"),
        ],
    )
    def test_refusals_name_file_and_key(
        self, file: Path, document: dict[str, Any], way: list[Any], value: Any, words: str
    ) -> None:
        *above, last = way
        holder = document
        for key in above:
            holder = holder[key]
        holder[last] = value
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(ConfigError, match=f"^mine.yaml: {words}"):
            Calibration.load(file)

    @pytest.mark.parametrize("key", ["psa_calibration", "block_m", "recipes", "heads", "errors"])
    def test_what_is_left_out_is_named(self, file: Path, document: dict[str, Any], key: str) -> None:
        del document[key]
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(ConfigError, match=rf"^mine.yaml: {key} = None: "):
            Calibration.load(file)

    def test_a_preset_file_is_no_calibration(self, file: Path) -> None:
        file.write_text("Wan: {attention_configs: {}}", encoding="utf-8")
        with pytest.raises(ConfigError, match="this is no calibration file"):
            Calibration.load(file)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        for name in ("nowhere.yaml", "nowhere\0"):
            with pytest.raises(ConfigError, match=r"file = 'nowhere.*': is no file"):
                Calibration.load(tmp_path / name)
