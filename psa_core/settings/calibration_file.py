"""Calibration files: a YAML document <-> the fields of a :class:`~.calibration.Calibration`.

A document says each distinct recipe once, and of every layer the numbers of its heads' recipes::

    psa_calibration: 1
    block_m: 128
    block_n: 128
    model: Wan2.1_14b
    recipes:
    - {order: Gilbert, estimator: sampled_sum, mix: pyramid, density: 0.15}
    - {order: Raster, estimator: sampled_max, mix: level 1, density: 0.15}
    heads:
      0: [0, 0, 1, 0]
    errors:
      0: [0.11, 0.08, 0.21, 0.09]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError
from .recipe import Recipe
from .validation import nested, plain
from .yaml_files import MOST_VALUES

VERSION_KEY, _VERSION = "psa_calibration", 1
_BY_LAYER = ("recipes", "errors")


def document_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The document that says these fields."""
    by_layer: Mapping[int, Sequence[Recipe]] = fields["recipes"]
    numbers: dict[Recipe, int] = {}
    heads = {
        layer: [numbers.setdefault(recipe, len(numbers)) for recipe in recipes] for layer, recipes in by_layer.items()
    }
    return {
        VERSION_KEY: _VERSION,
        **{key: plain(value) for key, value in fields.items() if key not in _BY_LAYER and value is not None},
        "recipes": [plain(recipe) for recipe in numbers],
        "heads": heads,
        "errors": plain(fields["errors"]),
    }


def check_size(document: Mapping[str, Any]) -> None:
    """See that a file with the document could be read again.

    Raises:
        ConfigError: it would have more values than are read from a file.
    """
    values = _values(document)
    if values > MOST_VALUES:
        allowed = f"too many to save: a file of {values:,} values, of which at most {MOST_VALUES:,} are read"
        raise ConfigError("recipes", f"of {len(document['heads'])} layers", allowed)


def fields_of(document: Any) -> dict[str, Any]:
    """The fields that a document says, with a recipe for each head; the other values are left to be checked.

    Raises:
        ConfigError: it is no calibration, or of a newer release, or its recipes are not valid.
    """
    if not isinstance(document, Mapping) or VERSION_KEY not in document:
        raise ConfigError(VERSION_KEY, None, "is missing: this is no calibration file")
    fields = dict(document)
    _check_version(fields.pop(VERSION_KEY))
    recipes = [_recipe(number, value) for number, value in enumerate(_list("recipes", fields.get("recipes")))]
    heads = fields.pop("heads", None)
    if not isinstance(heads, Mapping) or not heads:
        raise ConfigError("heads", heads, "must map layers to the numbers of their heads' recipes")
    _check_layers(heads, fields.get("errors"))
    fields["recipes"] = {
        layer: [_pick(recipes, number, f"heads.{layer}") for number in _list(f"heads.{layer}", numbers)]
        for layer, numbers in heads.items()
    }
    return fields


def _check_version(version: Any) -> None:
    if type(version) is int and version > _VERSION:
        allowed = f"was made by a newer release of this pack, which reads up to {_VERSION}: update it"
        raise ConfigError(VERSION_KEY, version, allowed)
    if type(version) is not int or version != _VERSION:
        raise ConfigError(VERSION_KEY, version, f"must be {_VERSION}")


def _check_layers(heads: Mapping[Any, Any], errors: Any) -> None:
    """See that both name the same layers, as their mapping would not say in which of them one has to change."""
    by_key = {"heads": heads, "errors": errors if isinstance(errors, Mapping) else heads}
    for key, by_layer in by_key.items():
        for layer in by_layer:
            if type(layer) is not int:
                raise ConfigError(key, layer, "is no layer: must be a whole number, without quotation marks")
    for key, other in (("heads", "errors"), ("errors", "heads")):
        for layer in by_key[other]:
            if layer not in by_key[key]:
                raise ConfigError(f"{key}.{layer}", None, f"is missing: {other} has this layer; give both, or neither")
    first = next(iter(heads), None)
    for layer, numbers in heads.items():
        if len(_list(f"heads.{layer}", numbers)) != len(_list(f"heads.{first}", heads[first])):
            allowed = f"must have as many numbers as heads.{first}, which has {len(heads[first])}"
            raise ConfigError(f"heads.{layer}", numbers, allowed)


def _recipe(number: int, value: Any) -> Recipe:
    recipe = nested(f"recipes.{number}", value, Recipe)
    if recipe is None:
        raise ConfigError(f"recipes.{number}", None, "must be a mapping of Recipe's settings")
    return recipe


def _pick(recipes: Sequence[Recipe], number: Any, key: str) -> Recipe:
    if type(number) is not int or not 0 <= number < len(recipes):
        raise ConfigError(key, number, f"must be the number of one of {len(recipes)} recipes, counted from 0")
    return recipes[number]


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(key, value, "must be a list")
    return value


def _values(document: Any) -> int:
    """How many YAML values a document has, the keys of mappings among them."""
    if isinstance(document, Mapping):
        return 1 + sum(1 + _values(value) for value in document.values())
    return 1 + (sum(map(_values, document)) if isinstance(document, list) else 0)
