"""Settings from strangers' graphs: each is taken or refused with its key, at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from psa_core import PSAConfig, RadialMask, Schedule

from .outcome import refused_or_taken
from .strategies import VALUES

KINDS = (PSAConfig, Schedule, RadialMask)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.settings(max_examples=150)
@hypothesis.given(data=st.data())
def test_any_value_of_any_setting(kind: type, data: st.DataObject) -> None:
    keys = st.sampled_from([field.name for field in dataclasses.fields(kind)])
    settings: dict[str, Any] = data.draw(st.dictionaries(keys, VALUES, min_size=1, max_size=2))
    with refused_or_taken():
        made = kind(**settings)
        assert kind(**{field.name: getattr(made, field.name) for field in dataclasses.fields(kind)}) == made
