"""Settings from strangers' graphs: each is taken or refused with its key, at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from psa_core import Calibration, PSAConfig, RadialMask, Recipe, Schedule

from .outcome import refused_or_taken
from .strategies import VALUES

RECIPE = {"order": "Tile", "estimator": "mean", "mix": "tail", "density": 0.15}
# Each with the settings that it has no defaults for.
KINDS: list[tuple[type, dict[str, Any]]] = [
    (PSAConfig, {}),
    (PSAConfig, {"mask_mode": "calibrated"}),
    (Schedule, {}),
    (RadialMask, {}),
    (Recipe, RECIPE),
    (Calibration, {"block_m": 128, "block_n": 128, "recipes": {0: [Recipe(**RECIPE)]}, "errors": {0: [0.1]}}),
]


@pytest.mark.parametrize(("kind", "given"), KINDS)
@hypothesis.settings(max_examples=75)
@hypothesis.given(data=st.data())
def test_any_value_of_any_setting(kind: type, given: dict[str, Any], data: st.DataObject) -> None:
    keys = st.sampled_from([field.name for field in dataclasses.fields(kind)])
    settings: dict[str, Any] = data.draw(st.dictionaries(keys, VALUES, min_size=1, max_size=2))
    with refused_or_taken():
        made = kind(**(given | settings))
        assert kind(**{field.name: getattr(made, field.name) for field in dataclasses.fields(kind)}) == made
