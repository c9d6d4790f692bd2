"""CogVideoX LoRAs under ComfyUI's names, against what peft makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from safetensors import safe_open

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("peft")

from psa_core import ConfigError
from psa_core.models.cogvideox.lora import MappedLoRA, map_lora
from psa_core.models.cogvideox.lora.keys import Layers, unfused
from psa_core.models.cogvideox.names import diffusers_name

from ..comfyui.cogvideox_loras import EVERY, LAYERS, add_lora, native_name, native_weights, save_lora, transformer

KINDS: dict[str, dict[str, Any]] = {
    "1.0": {},
    "1.5": {"temporal_patch": 2},
    "1.5 image": {"in_channels": 32, "temporal_patch": 2, "ofs": True},
}
DIM = 8
SIZES = {"q": (DIM, DIM), "k": (DIM, DIM), "v": (DIM, DIM), "attn_out": (DIM, DIM)}
SIZES |= {"ff_proj": (4 * DIM, DIM), "ff_out": (DIM, 4 * DIM), "norm1.linear": (6 * DIM, 5)}
SHAPES: dict[str, tuple[int, ...]] = {
    f"blocks.{block}.{layer}.{parameter}": size[: 1 if parameter == "bias" else 2]
    for block in (0, 1, 11)
    for layer, size in SIZES.items()
    for parameter in ("weight", "bias")
}
SHAPES |= {
    "patch_embed.proj.weight": (DIM, 3, 2, 2),
    "norm_final.weight": (DIM,),
    "time_embedding_linear_1.weight": (5, DIM),
}
MATRICES = sorted(name.removesuffix(".weight") for name, shape in SHAPES.items() if len(shape) > 1)
QUERY = "transformer.transformer_blocks.0.attn1.to_q"


def pair(layer: str, rank: int = 2, names: tuple[str, str] = ("lora_A.weight", "lora_B.weight")) -> dict[str, Any]:
    """Random factors for a layer that the model calls by the last of the names tried."""
    layers = unfused(Layers(MATRICES).find(layer) or "blocks.0.q")
    rows, *columns = SHAPES[f"{layers[0]}.weight"]
    rows *= len(layers)
    up = torch.randn(rows, rank, *(1 for _ in columns[1:]))
    return {f"{layer}.{names[0]}": torch.randn(rank, *columns), f"{layer}.{names[1]}": up}


def delta(mapped: MappedLoRA, layer: str) -> torch.Tensor:
    """What a layer's LoRA adds to its weight, as a matrix."""
    up, down = (mapped.tensors[f"{layer}.lora_{part}.weight"].flatten(1) for part in ("up", "down"))
    alpha = mapped.tensors.get(f"{layer}.alpha")
    scale = 1.0 if alpha is None else alpha.item() / down.shape[0]
    return scale * up @ down


def shapes_of(weights: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in weights.items()}


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_of_diffusers_own_model(tmp_path: Path, kind: str) -> None:
    weights = native_weights(tmp_path, **KINDS[kind])
    named = {
        f"{diffusers_name(layer)}.{parameter}": tuple(x.shape)
        for layer, parameter, x in ((*name.rsplit(".", 1), x) for name, x in weights.items())
    }

    assert named == shapes_of(transformer(weights).state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"r": 2, "rank_pattern": {"to_q": 7, "transformer_blocks.1.attn1.to_v": 3}},
        {"lora_alpha": 10, "alpha_pattern": {"to_q": 1, r"transformer_blocks\.\d\.ff\.net\.2": 24}},
        {"lora_alpha": 6, "use_rslora": True, "rank_pattern": {"proj_out": 9}},
    ],
    ids=["plain", "ranks", "alphas", "rslora"],
)
def test_adds_what_peft_adds(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    weights = native_weights(tmp_path, **KINDS[kind])
    model = transformer(weights)
    add_lora(model, **{"lora_alpha": 4} | settings)
    tensors, metadata = read(save_lora(model, tmp_path, metadata=True))

    mapped = map_lora(tensors, metadata, shapes_of(weights))

    expected = {
        native_name(f"{name}.").removesuffix("."): module.get_delta_weight("default").flatten(1)
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    assert len(expected) == 8 * LAYERS + 6
    assert mapped.weights == {f"{layer}.weight" for layer in expected}
    assert not mapped.unused
    for layer, added in expected.items():
        assert torch.allclose(delta(mapped, layer), added, rtol=1e-4, atol=1e-6), layer


def test_without_alpha_the_factors_count_in_full(tmp_path: Path) -> None:
    """diffusers does the same, whatever alpha was in training."""
    weights = native_weights(tmp_path)
    model = transformer(weights)
    add_lora(model, lora_alpha=8)
    tensors, metadata = read(save_lora(model, tmp_path))

    mapped = map_lora(tensors, metadata, shapes_of(weights))

    name = "transformer.transformer_blocks.0.attn1.to_q"
    assert torch.equal(delta(mapped, "blocks.0.q"), tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"])
    reread = transformer(weights)
    reread.load_lora_adapter(tensors, prefix="transformer")
    added = reread.transformer_blocks[0].attn1.to_q.get_delta_weight("default_0")
    assert torch.allclose(delta(mapped, "blocks.0.q"), added, atol=1e-6)


def test_reports_the_layout_of_the_4_step_lora() -> None:
    """Keys as its trainer writes them, at the size of CogVideoX-5B."""
    parts = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "attn_out"}
    shapes = {f"blocks.{block}.{layer}.weight": (3072, 3072) for block in range(42) for layer in parts.values()}
    tensors = {
        f"transformer.transformer_blocks.{block}.attn1.{part}.{name}.weight": torch.empty(size, device="meta")
        for block in range(42)
        for part in parts
        for name, size in (("lora_A", (64, 3072)), ("lora_B", (3072, 64)))
    }

    mapped = map_lora(tensors, {"format": "pt"}, shapes)

    assert mapped.line() == "CogVideoX LoRA: 336 of 336 keys, 168 weights patched, rank 64"
    assert mapped.weights == shapes.keys()


PREFIXES = ("", "transformer.", "base_model.model.", "base_model.model.transformer.", "diffusion_model.", "model.")
PREFIXES += ("module.", "transformer._orig_mod.")
FLAT_PREFIXES = ("lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_")
FACTORS = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_A.my_adapter-2.weight", "lora_B.my_adapter-2.weight"),
    ("lora_A.default", "lora_B.default"),
    ("lora_A", "lora_B"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
)


@st.composite
def spelled(draw: st.DrawFn, layer: str) -> str:
    """Any name that a file may give to a layer."""
    name = draw(st.sampled_from([layer, diffusers_name(layer)]))
    if draw(st.booleans()):
        return draw(st.sampled_from(PREFIXES)) + name
    return draw(st.sampled_from(FLAT_PREFIXES)) + name.replace(".", "_")


@given(st.data())
def test_finds_any_spelling_of_any_layer(data: st.DataObject) -> None:
    layers = data.draw(st.sets(st.sampled_from(MATRICES), min_size=1))
    tensors, expected = {}, {}
    for layer in sorted(layers):
        name, rank = data.draw(spelled(layer)), data.draw(st.integers(1, 5))
        factors = pair(layer, rank)
        down, up = factors.values()
        tensors |= dict(
            zip((f"{name}.{part}" for part in data.draw(st.sampled_from(FACTORS))), (down, up), strict=True)
        )
        expected[layer] = up.flatten(1) @ down.flatten(1)
        if data.draw(st.booleans()):
            alpha = data.draw(st.floats(0.5, 128))
            tensors[f"{name}.alpha"] = torch.tensor(alpha) if data.draw(st.booleans()) else torch.tensor([alpha])
            expected[layer] = expected[layer] * alpha / rank
    strangers = data.draw(st.sets(st.sampled_from(["text_encoder.layers.0.q.lora_A.weight", f"{QUERY}.weight", "x"])))
    keys = data.draw(st.permutations([*tensors, *strangers]))

    mapped = map_lora({key: tensors.get(key, torch.zeros(1)) for key in keys}, None, SHAPES)

    assert mapped.weights == {f"{layer}.weight" for layer in layers}
    assert mapped.unused.keys() == strangers
    assert mapped.total == len(tensors) + len(strangers)
    for layer, added in expected.items():
        assert torch.allclose(delta(mapped, layer), added, rtol=1e-4, atol=1e-5)


@given(st.sampled_from(["blocks.11.qkv", "transformer_blocks.11.attn1.to_qkv"]), st.integers(1, 6), st.booleans())
def test_cuts_a_fused_lora_into_three(name: str, rank: int, stated: bool) -> None:
    tensors = pair(name, rank)
    whole = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    if stated:
        tensors[f"{name}.alpha"] = torch.tensor(3.0)

    mapped = map_lora(tensors, None, SHAPES)

    added = torch.cat([delta(mapped, f"blocks.11.{part}") for part in "qkv"])
    assert torch.allclose(added, (3 / rank if stated else 1) * whole, rtol=1e-4, atol=1e-5)
    assert mapped.weights == {f"blocks.11.{part}.weight" for part in "qkv"}
    assert mapped.line().startswith(f"CogVideoX LoRA: {len(tensors)} of {len(tensors)} keys, 3 weights patched")


def test_alpha_in_the_file_goes_before_its_metadata() -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 5, "transformer.r": 2})}
    key = "transformer.transformer_blocks.1.attn1.to_k"

    mapped = map_lora(pair(QUERY) | pair(key) | {f"{QUERY}.alpha": torch.tensor(7)}, metadata, SHAPES)

    assert (mapped.tensors["blocks.0.q.alpha"], mapped.tensors["blocks.1.k.alpha"]) == (7, 5)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"text_encoder.layers.0.q.lora_A.weight": torch.zeros(2, DIM)}, "no such layer in this model"),
        (pair("transformer.transformer_blocks.2.attn1.to_q"), "no such layer in this model"),
        ({f"{QUERY}.weight": torch.zeros(DIM, DIM)}, "no part of a LoRA"),
        ({f"{QUERY}.lora_B.bias": torch.zeros(DIM)}, "no part of a LoRA"),
        ({f"{QUERY}.lokr_w1": torch.zeros(2, 2)}, "no part of a LoRA"),
        ({f"{QUERY}.lora_A.weight": torch.zeros(2, DIM)}, "lora_up missing"),
        ({f"{QUERY}.lora_B.weight": torch.zeros(DIM, 2)}, "lora_down missing"),
        ({f"{QUERY}.alpha": torch.zeros(())}, "lora_down and lora_up missing"),
        (pair(QUERY) | {f"{QUERY}.alpha": torch.zeros(2)}, "alpha is of 2"),
        (
            {f"{QUERY}.lora_A.weight": torch.zeros(2, 30), f"{QUERY}.lora_B.weight": torch.zeros(30, 2)},
            "for a weight of 30 x 30, this one has 8 x 8",
        ),
        (
            {f"{QUERY}.lora_A.weight": torch.zeros(2, DIM), f"{QUERY}.lora_B.weight": torch.zeros(DIM, 3)},
            "lora_up of 8 x 3 times lora_down of 2 x 8 is no product",
        ),
        (
            {f"{QUERY}.lora_A.weight": torch.zeros(()), f"{QUERY}.lora_B.weight": torch.zeros(())},
            "lora_up of one number times lora_down of one number is no product",
        ),
        (
            pair(QUERY) | {f"{QUERY}.lora_magnitude_vector.weight": torch.ones(DIM + 1)},
            "DoRA norms of 9 for a weight of 8 x 8",
        ),
        (pair(QUERY) | {f"{QUERY}.dora_scale": torch.ones(DIM)}, "DoRA norms of 8 for a weight of 8 x 8"),
        (
            pair("blocks.0.qkv") | {"blocks.0.qkv.dora_scale": torch.ones(1, DIM)},
            "DoRA norms of 1 x 8 for a weight of 24 x 8",
        ),
        ({f"{QUERY}.diff": torch.zeros(DIM, 3)}, "for a weight of 8 x 3, this one has 8 x 8"),
        ({f"{QUERY}.diff_b": torch.zeros(3)}, "for a bias of 3, this one has 8"),
        ({"norm_final.diff_b": torch.zeros(DIM)}, "the layer has no bias"),
    ],
)
def test_leaves_out_as_a_whole_what_does_not_fit(tensors: dict[str, torch.Tensor], reason: str) -> None:
    fitting = pair("transformer_blocks.1.attn1.to_v")

    mapped = map_lora(tensors | fitting, None, SHAPES)

    assert mapped.unused == dict.fromkeys(tensors, reason)
    assert mapped.weights == {"blocks.1.v.weight"}
    first = next(iter(tensors))
    assert mapped.line().startswith(
        f"CogVideoX LoRA: 2 of {len(tensors) + 2} keys, 1 weights patched, rank 2 | not used: {first} ({reason})"
    )


def test_line_names_three_of_many() -> None:
    mapped = map_lora({f"key{i}": torch.zeros(1) for i in range(5)} | pair(QUERY) | pair("blocks.1.q", 5), None, SHAPES)

    assert mapped.line() == (
        "CogVideoX LoRA: 4 of 9 keys, 2 weights patched, ranks 2 to 5 | not used: "
        + ", ".join(f"key{i} (no part of a LoRA)" for i in range(3))
        + " and 2 more"
    )


@pytest.mark.parametrize(
    "other",
    ["blocks.0.q", "transformer_blocks.0.attn1.to_q", "lora_unet_transformer_blocks_0_attn1_to_q", "blocks.0.qkv"],
)
def test_the_same_weight_twice_is_an_error(other: str) -> None:
    with pytest.raises(ConfigError, match=rf"key = '{other}.*: changes the same weight as '{QUERY}.*; keep one"):
        map_lora(pair(QUERY) | pair(other), None, SHAPES)


def test_two_adapters_of_one_weight_are_an_error() -> None:
    student, critic = ((f"lora_A.{name}.weight", f"lora_B.{name}.weight") for name in ("student", "critic"))

    with pytest.raises(ConfigError, match=r"critic.*: changes the same weight as .*student"):
        map_lora(pair(QUERY, names=student) | pair(QUERY, names=critic), None, SHAPES)


@pytest.mark.parametrize("layer", ["blocks.0.ff_out", "patch_embed.proj"])
@pytest.mark.parametrize("ending", ["lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight"])
def test_norms_of_peft_become_those_that_comfyui_takes(layer: str, ending: str) -> None:
    norms = torch.rand(DIM)

    mapped = map_lora(pair(layer) | {f"{layer}.{ending}": norms}, None, SHAPES)

    weight = torch.zeros(SHAPES[f"{layer}.weight"])
    assert mapped.tensors[f"{layer}.dora_scale"].ndim == weight.ndim
    assert torch.equal((weight + mapped.tensors[f"{layer}.dora_scale"]).flatten(1)[:, 0], norms)
    assert mapped.line().endswith("rank 2, 1 with DoRA")


@pytest.mark.parametrize("shape", [(4 * DIM, 1), (1, DIM)])
def test_norms_of_lycoris_stay(shape: tuple[int, int]) -> None:
    norms = torch.rand(shape)

    mapped = map_lora(pair("blocks.1.ff_proj") | {"blocks.1.ff_proj.dora_scale": norms}, None, SHAPES)

    assert torch.equal(mapped.tensors["blocks.1.ff_proj.dora_scale"], norms)


def test_cuts_norms_and_differences_like_the_weight() -> None:
    norms, difference, bias = torch.rand(3 * DIM, 1), torch.randn(3 * DIM, DIM), torch.randn(3 * DIM)
    fused = "transformer.transformer_blocks.0.attn1.to_qkv"
    tensors = pair("blocks.1.qkv") | {"blocks.1.qkv.lora_magnitude_vector": norms.flatten()}

    mapped = map_lora(tensors | {f"{fused}.diff": difference, f"{fused}.diff_b": bias}, None, SHAPES)

    assert not mapped.unused
    assert torch.equal(torch.cat([mapped.tensors[f"blocks.1.{part}.dora_scale"] for part in "qkv"]), norms)
    assert torch.equal(torch.cat([mapped.tensors[f"blocks.0.{part}.diff"] for part in "qkv"]), difference)
    assert torch.equal(torch.cat([mapped.tensors[f"blocks.0.{part}.diff_b"] for part in "qkv"]), bias)
    assert mapped.weights >= {"blocks.0.q.weight", "blocks.0.v.bias", "blocks.1.k.weight"}
    assert len(mapped.weights) == 9


@pytest.mark.parametrize("difference", [f"{QUERY}.diff", "blocks.0.qkv.diff"])
def test_a_lora_and_a_difference_of_one_weight_are_an_error(difference: str) -> None:
    """ComfyUI's loader would keep one and drop the other."""
    with pytest.raises(ConfigError, match=r"diff'.*: changes the same weight as"):
        map_lora(pair(QUERY) | {difference: torch.zeros(DIM, DIM)}, None, SHAPES)


def test_a_lora_and_a_difference_of_the_bias_go_together() -> None:
    mapped = map_lora(pair(QUERY) | {f"{QUERY}.diff_b": torch.zeros(DIM)}, None, SHAPES)

    assert mapped.weights == {"blocks.0.q.weight", "blocks.0.q.bias"}
    assert not mapped.unused


def test_every_layer_of_the_list_is_one_that_peft_adapts(tmp_path: Path) -> None:
    model = transformer(native_weights(tmp_path))
    adaptable = {
        name for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    }

    assert {name for name in adaptable if not name.endswith(tuple(EVERY))} == set()
