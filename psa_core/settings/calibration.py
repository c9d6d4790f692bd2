"""A calibration: the recipe of every layer and head, and what it was measured on."""

from __future__ import annotations

import dataclasses
import logging
import sys
from ast import literal_eval
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .calibration_file import check_size, document_of, fields_of
from .config import DEFAULT_TILE_SIZE, PSAConfig
from .errors import ConfigError, errors_at
from .files import write_text
from .orders import ORDERS_WITH_TILES, RASTER
from .recipe import Recipe
from .sizes import BLOCK_M, BLOCK_N, MOST_LAYERS, Grid
from .targets import read_targets
from .validation import FrozenMap, check_choice, check_kind, check_names, check_text, check_whole, extents, text_hint
from .yaml_files import read_yaml, yaml_text

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The recipe of every layer and head, validated on construction; a run that has one chooses nothing.

    Attributes:
        block_m, block_n: queries a query block, keys a key block.
        recipes: layer, a transformer block counted from 0, -> a :class:`~.recipe.Recipe` for each head. All layers
            have as many heads.
        errors: layer -> the relative error of each head's output by which its recipe was chosen.
        target_density, target_error: what the recipes were chosen for; one of them at most.
        tile_size: (frames, height, width) in tokens of a tile, of recipes of the orders ``"Tile"`` and ``"Hybrid"``.
        model: what was calibrated, for people.
        grid: (frames, height, width) of the video in tokens; None where there was none.
        text_length: text tokens in front of the video.
        description: shown to people.

    Raises:
        ConfigError: a part is not allowed; the message names the key, the value and what is allowed.
    """

    block_m: int
    block_n: int
    recipes: Mapping[int, Sequence[Recipe]]
    errors: Mapping[int, Sequence[float]]
    target_density: float | None = None
    target_error: float | None = None
    tile_size: tuple[int, int, int] = DEFAULT_TILE_SIZE
    model: str = ""
    grid: Grid | None = None
    text_length: int = 0
    description: str = ""
    # For compiled graphs, as PSAConfig has it.
    as_text: ClassVar[str]

    def __post_init__(self) -> None:
        check_choice("block_m", self.block_m, BLOCK_M)
        check_choice("block_n", self.block_n, BLOCK_N)
        check_whole("text_length", self.text_length, 0)
        check_text("model", self.model)
        check_text("description", self.description)
        density, error = read_targets(self.target_density, self.target_error)
        set_field = object.__setattr__
        set_field(self, "target_density", density)
        set_field(self, "target_error", error)
        set_field(self, "tile_size", extents("tile_size", self.tile_size))
        set_field(self, "grid", None if self.grid is None else extents("grid", self.grid))
        set_field(self, "recipes", _read_recipes(self.recipes))
        set_field(self, "errors", _read_errors(self.errors, self.recipes))
        set_field(self, "as_text", repr(self._document()))

    @property
    def heads(self) -> int:
        """Heads a layer."""
        return len(next(iter(self.recipes.values())))

    def layer(self, layer: int) -> Calibration:
        """The calibration of one layer alone.

        Raises:
            ConfigError: it has no such layer.
        """
        self._check_layer(layer)
        return dataclasses.replace(self, recipes={layer: self.recipes[layer]}, errors={layer: self.errors[layer]})

    def part(self, first: int, heads: int) -> Calibration:
        """The calibration of some heads alone, as many as ``heads``, in layers where other GPUs have the others.

        Args:
            first: of them, counted from 0.

        Raises:
            ConfigError: it has no such heads.
        """
        some = slice(first, first + heads)
        if some.stop > self.heads:
            allowed = f"the calibration has recipes for {self.heads} heads: it is of another model"
            raise ConfigError("heads", some.stop, allowed)
        return dataclasses.replace(
            self,
            recipes={layer: of_heads[some] for layer, of_heads in self.recipes.items()},
            errors={layer: of_heads[some] for layer, of_heads in self.errors.items()},
        )

    def check_fits(self, config: PSAConfig, heads: int, layer: int | None = None) -> None:
        """See that attention can follow it. Another size of the video is none of its concern.

        Args:
            config: settings of the attention.
            heads: its heads.
            layer: transformer block, counted from 0; None for all.

        Raises:
            ConfigError: blocks, tiles that a recipe has, heads, layer or the error aimed at differ; the message names
                which. Where a density is aimed at, recipes are good for others than that which they were chosen at.
        """
        tiles = ("tile_size",) if self._has_tiles else ()
        for key in ("block_m", "block_n", *tiles):
            if getattr(config, key) != getattr(self, key):
                allowed = f"the calibration was made with {getattr(self, key)}: set that, or calibrate anew"
                raise ConfigError(key, getattr(config, key), allowed)
        if config.target_error != self.target_error:
            made = f"target_error {self.target_error:g}" if self.target_error is not None else "a density"
            allowed = f"the calibration was made for {made}: aim at that, or calibrate anew"
            raise ConfigError("target_error", config.target_error, allowed)
        if heads != self.heads:
            raise ConfigError("heads", heads, f"the calibration has recipes for {self.heads}: it is of another model")
        if layer is not None:
            self._check_layer(layer)

    @property
    def orders(self) -> set[str]:
        """The orders that heads have, but for raster, which is as tokens lie."""
        return {recipe.order for recipes in self.recipes.values() for recipe in recipes} - {RASTER}

    def check_causal(self) -> None:
        """See that it puts no token in front of its past.

        Raises:
            ConfigError: a head has another order than raster.
        """
        orders = self.orders
        if orders:
            raise ConfigError("calibration", min(orders), "must have all heads in raster order for causal attention")

    @property
    def _has_tiles(self) -> bool:
        return not self.orders.isdisjoint(ORDERS_WITH_TILES)

    def _check_layer(self, layer: int) -> None:
        if layer not in self.recipes:
            there = f"of {len(self.recipes)} layers, from {min(self.recipes)} to {max(self.recipes)}"
            raise ConfigError("layer", layer, f"the calibration has recipes {there}, and none for this")

    def _document(self) -> dict[str, Any]:
        return document_of({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def from_text(cls, text: str) -> Calibration:
        """The calibration whose ``as_text`` this is."""
        return cls(**fields_of(literal_eval(text)))

    def save(self, path: str | Path) -> Path:
        """Write it to a YAML file, whole or not at all; the folder is made.

        Returns:
            The file.

        Raises:
            ConfigError: it has more heads than a file holds.
            WriteError: the file cannot be written; it is as it was.
        """
        file = Path(path)
        document = self._document()
        check_size(document)
        write_text(file, yaml_text(document, flow=None))
        return file

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` has written. The file is data: nothing in it is executed.

        Raises:
            ConfigError: it cannot be read, or holds something that is not allowed; the message names file and key.
        """
        file = Path(path)
        document, notes = read_yaml(file)
        for note in notes:
            log.warning("%s", note)
        with errors_at(file.name):
            fields = fields_of(document)
            check_names(cls, fields)
            return cls(**fields)


def check_calibration(calibration: Any) -> None:
    """See that what is given for a calibration is a :class:`Calibration`, and no path of one.

    Raises:
        ConfigError: it is not.
    """
    check_kind("calibration", calibration, Calibration, "Calibration.load(path) reads one from a file")


def _read_recipes(recipes: Any) -> FrozenMap:
    if not isinstance(recipes, Mapping) or not recipes:
        raise ConfigError("recipes", recipes, "must map layers to a recipe for each head")
    read: dict[int, tuple[Recipe, ...]] = {}
    for layer, heads in recipes.items():
        check_whole("layer", layer, 0, MOST_LAYERS - 1)
        if not isinstance(heads, Sequence) or not heads or not all(isinstance(recipe, Recipe) for recipe in heads):
            raise ConfigError(f"recipes.{layer}", heads, "must be a Recipe for each head, one at least")
        read[layer] = tuple(heads)
    first, *_ = read
    for layer, heads in read.items():
        if len(heads) != len(read[first]):
            allowed = f"must have as many as layer {first}, which has {len(read[first])}"
            raise ConfigError(f"layer {layer}", f"{len(heads)} heads", allowed)
    return FrozenMap(dict(sorted(read.items())))


def _read_errors(errors: Any, recipes: Mapping[int, Sequence[Recipe]]) -> FrozenMap:
    if not isinstance(errors, Mapping):
        raise ConfigError("errors", errors, "must map layers to the relative error of each head")
    for layer in (*errors, *recipes):
        if layer not in recipes or layer not in errors:
            without = "errors" if layer in recipes else "recipes"
            raise ConfigError("layer", layer, f"has no {without}: each layer has both")
    return FrozenMap({layer: _head_errors(f"errors.{layer}", errors[layer], len(recipes[layer])) for layer in recipes})


def _head_errors(key: str, values: Any, heads: int) -> tuple[float, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != heads:
        raise ConfigError(key, values, f"must be a number for each of {heads} heads")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
            allowed = f"must be a relative error, a number from 0 on{text_hint(value)}"
            raise ConfigError(key, value, allowed)
    return tuple(map(float, values))
