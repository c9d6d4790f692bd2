"""LoRAs, names of files in parts: keys, sizes and metadata of strangers."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from psa_core.models.cogvideox.lora import map_lora
from psa_core.models.cogvideox.names import core_parameter, diffusers_name
from psa_core.models.cogvideox.shards import all_shards

from .outcome import refused_or_taken
from .strategies import LETTERS, VALUES

DIM = 8
SHAPES = {f"blocks.{block}.{part}": (DIM, DIM) for block in range(2) for part in ("q.weight", "k.weight", "v.weight")}
LAYERS = st.sampled_from(
    [
        "transformer_blocks.0.attn1.to_q",
        "blocks.1.k",
        "lora_unet_blocks_1_v",
        "blocks.0.qkv",
        "_orig_mod." * 200 + "blocks.0.q",
    ]
)
ENDINGS = st.sampled_from(
    [".lora_A.weight", ".lora_B.weight", ".alpha", ".dora_scale", ".diff", ".lora_A.x.weight", ".lora.up"]
)
KEYS = st.one_of(LETTERS, st.builds(str.__add__, LAYERS, ENDINGS), st.sampled_from(["model_" * 20_000, "." * 100_000]))
SIZES = st.lists(st.integers(0, DIM + 1), max_size=4)
PATTERNS = st.one_of(
    st.from_regex(r"[a-z_0-9.()+*\[\]|^$\\]{1,30}", fullmatch=True), st.just("([a-z_0-9.]+)+!"), LETTERS
)
METADATA = st.fixed_dictionaries(
    {"alpha_pattern": st.dictionaries(PATTERNS, VALUES, max_size=3)}, optional={"lora_alpha": VALUES}
)
NAMES = st.from_regex(r"[a-z-]{0,5}-\d{1,12}-of-\d{1,12}\.safetensors", fullmatch=True)


@hypothesis.settings(max_examples=50)
@hypothesis.given(sizes=st.dictionaries(KEYS, SIZES, max_size=6))
def test_keys_and_sizes(sizes: dict[str, list[int]]) -> None:
    tensors = {key: torch.ones(size) for key, size in sizes.items()}
    with refused_or_taken():
        mapped = map_lora(tensors, None, SHAPES)
        assert len(mapped.line()) < 1000
        assert {key.partition(".lora")[0] for key in mapped.tensors if ".lora" in key} <= {
            "blocks.0.q",
            "blocks.0.k",
            "blocks.0.v",
            "blocks.1.k",
            "blocks.1.v",
        }


@hypothesis.settings(max_examples=75)
@hypothesis.given(settings=st.one_of(METADATA, VALUES))
def test_metadata(settings: object) -> None:
    try:
        text = json.dumps(settings, default=str)
    except (TypeError, ValueError):
        text = str(settings)[:1000]
    layer = "transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.ones(2, DIM), f"{layer}.lora_B.weight": torch.ones(DIM, 2)}
    with refused_or_taken():
        map_lora(tensors, {"lora_adapter_metadata": text}, SHAPES)


@hypothesis.given(name=st.one_of(NAMES, LETTERS))
def test_names_of_parts(folder: Path, name: str) -> None:
    hypothesis.assume(name and "/" not in name and "\0" not in name)
    with refused_or_taken():
        assert folder / name in all_shards(folder / name, "unet_name")


@hypothesis.given(name=st.one_of(LETTERS, st.builds(str.__add__, LAYERS, ENDINGS)))
def test_names_of_weights(name: str) -> None:
    with refused_or_taken():
        assert isinstance(core_parameter(name), str)
        assert isinstance(diffusers_name(name), str)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")
