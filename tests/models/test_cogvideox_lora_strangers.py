"""LoRA files of strangers: what their keys, their metadata and their alphas may not cost."""

from __future__ import annotations

import json
import math

import pytest
import torch

from psa_core import ConfigError
from psa_core.models.cogvideox.lora import map_lora

from ..support.little_work import little_work
from .test_cogvideox_lora import DIM, QUERY, SHAPES, pair


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"lora_alpha": "much"}',
        '{"lora_alpha": NaN}',
        '{"lora_alpha": 1e999}',
        '{"lora_alpha": 1' + "0" * 400 + "}",
        '{"lora_alpha": 1' + "0" * 5000 + "}",
        '{"lora_alpha": 1, "alpha_pattern": {"(": 1}}',
        '{"lora_alpha": 1, "alpha_pattern": {"to_q": Infinity}}',
        # Each would be run for longer than anybody waits.
        '{"alpha_pattern": {"([a-z_0-9.]+)+!": 1}}',
        '{"alpha_pattern": {".*.*.*.*.*.*.*.*!": 1}}',
        '{"alpha_pattern": {"' + "a" * 10_000 + '": 1}}',
        json.dumps({"alpha_pattern": {f"layer.{i}": 1 for i in range(10_000)}}),
        "[" * 100_000,
    ],
    ids=range(14),
)
def test_broken_metadata_are_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"lora_adapter_metadata = .*: must be peft's settings of the LoRA as JSON"):
        map_lora(pair(QUERY), {"lora_adapter_metadata": text}, SHAPES)


@pytest.mark.parametrize("key", ["model_" * 30_000 + "proj_out.lora_A.weight", "a" * 170_000, ".lora_A" * 25_000])
def test_a_key_that_no_trainer_writes_takes_no_longer_than_others(key: str) -> None:
    with little_work(3):
        mapped = map_lora(pair(QUERY) | {key: torch.zeros(2, DIM)}, None, SHAPES)

    assert mapped.unused == {key: "no part of a LoRA"}
    assert len(mapped.line()) < 400


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_an_alpha_that_is_no_number_leaves_the_layer_out(alpha: float) -> None:
    mapped = map_lora(pair(QUERY) | {f"{QUERY}.alpha": torch.tensor(alpha)}, None, SHAPES)

    assert not mapped.tensors
    assert set(mapped.unused.values()) == {f"alpha is {alpha}"}
