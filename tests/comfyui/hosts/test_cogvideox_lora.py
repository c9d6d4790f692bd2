"""CogVideoX LoRA Loader on a server: patched weights, what diffusers computes with the same file, and refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("peft")

from diffusers.models.embeddings import get_3d_rotary_pos_embed

from ..checkpoints import COG_DIM, TEXT_DIM
from ..client import PromptFailedError, PromptResult
from ..cogvideox_loras import EVERY, add_lora, save_lora, transformer
from ..conftest import ComfyUI
from ..graphs import Graph, Patch, single_pass
from ..psa import chain, line, psa, relative_error
from ..tiny_models import HOSTS

Tensors = dict[str, torch.Tensor]
WriteLoRA = Callable[[Tensors], str]

BLOCK = "transformer.transformer_blocks"
_numbers = itertools.count()


def lora(name: str, strength: float = 1.0) -> Patch:
    return lambda graph, model: graph.add("PSACogVideoXLoRA", model=model, lora_name=name, strength_model=strength)


def shown(result: PromptResult, graph: Graph) -> str:
    (node,) = graph.nodes_of("PSACogVideoXLoRA")
    return result.lines[node]


def pair(name: str, rank: int, rows: int = COG_DIM, columns: int = COG_DIM) -> Tensors:
    """Factors whose product is as large as the weight."""
    return {
        f"{name}.lora_A.weight": torch.randn(rank, columns) / columns**0.5,
        f"{name}.lora_B.weight": torch.randn(rows, rank) / rank**0.5,
    }


def product(tensors: Tensors, name: str) -> torch.Tensor:
    return tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]


@pytest.fixture(scope="module")
def loras(comfyui: ComfyUI) -> Path:
    folder = comfyui.server.base_directory / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def write_lora(loras: Path) -> WriteLoRA:
    """Puts tensors where the loader finds them, as a file of their own, and returns its name."""

    def write(tensors: Tensors) -> str:
        name = f"lora_{next(_numbers)}.safetensors"
        save_file(tensors, loras / name)
        return name

    return write


def checkpoint(comfyui: ComfyUI, host: str) -> Tensors:
    return load_file(comfyui.server.base_directory / "models" / "diffusion_models" / HOSTS[host].checkpoint)


def patched_weights(comfyui: ComfyUI, path: Path, patch: Patch, host: str = "cogvideox") -> Tensors:
    graph = Graph()
    model = patch(graph, graph.add("UNETLoader", unet_name=HOSTS[host].checkpoint, weight_dtype="default"))
    graph.add("PSATestWeights", model=model, path=str(path), nonce=next(_numbers))
    comfyui.client.run(graph)
    return load_file(path)


def attention_lora() -> tuple[Tensors, Tensors]:
    """A file with split and fused projections, ranks of their own and some alphas; and what it adds by weight."""
    split = {f"{BLOCK}.{block}.attn1.{part}": 3 + block for block in (0, 1) for part in ("to_q", "to_k", "to_out.0")}
    tensors: Tensors = {}
    for name, rank in split.items():
        tensors |= pair(name, rank)
    fused, native = f"{BLOCK}.2.attn1.to_qkv", "diffusion_model.blocks.1.ff_proj"
    tensors |= pair(fused, 6, rows=3 * COG_DIM) | pair(native, 2, rows=4 * COG_DIM)
    tensors |= {f"{fused}.alpha": torch.tensor(3.0), f"{BLOCK}.1.attn1.to_q.alpha": torch.tensor(8.0)}
    added = {
        f"blocks.{name.split('.')[2]}.{layer}.weight": product(tensors, name)
        for name in split
        for part, layer in (("to_q", "q"), ("to_k", "k"), ("to_out.0", "attn_out"))
        if name.endswith(part)
    }
    added["blocks.1.q.weight"] *= 8 / 4
    thirds = (product(tensors, fused) * 3 / 6).chunk(3)
    added |= {f"blocks.2.{part}.weight": third for part, third in zip("qkv", thirds, strict=True)}
    added["blocks.1.ff_proj.weight"] = product(tensors, native)
    return tensors, added


@pytest.mark.parametrize("strength", [1.0, 0.5, -2.0])
def test_weights_are_the_old_ones_plus_the_scaled_product(
    comfyui: ComfyUI, write_lora: WriteLoRA, tmp_path: Path, strength: float
) -> None:
    tensors, added = attention_lora()

    weights = patched_weights(comfyui, tmp_path / "weights", lora(write_lora(tensors), strength))

    before = checkpoint(comfyui, "cogvideox")
    for name, weight in before.items():
        if name in added:
            expected = weight + strength * added[name]
            assert torch.allclose(weights[name], expected, rtol=1e-4, atol=1e-5), name
        else:
            assert torch.equal(weights[name], weight), name


def test_the_sampled_latent_is_that_of_merged_weights(comfyui: ComfyUI, write_lora: WriteLoRA) -> None:
    tensors, added = attention_lora()
    folder = comfyui.server.base_directory / "models" / "diffusion_models"
    merged = {name: x + 0.7 * added.get(name, 0) for name, x in checkpoint(comfyui, "cogvideox").items()}
    save_file(merged, folder / "merged.safetensors")
    reference = single_pass("cogvideox")
    reference[reference.nodes_of("UNETLoader")[0]]["inputs"]["unet_name"] = "merged.safetensors"
    graph = single_pass("cogvideox", patch=lora(write_lora(tensors), 0.7))

    result = comfyui.client.run(graph)

    latent, dense = comfyui.client.latent(result), comfyui.client.sample(single_pass("cogvideox"))
    assert relative_error(latent, dense) > 0.05
    assert relative_error(latent, comfyui.client.sample(reference)) < 1e-4
    assert shown(result, graph) == "CogVideoX LoRA: 18 of 18 keys, 10 weights patched, ranks 2 to 6"
    assert shown(result, graph) in comfyui.server.log_text()


@pytest.mark.parametrize("host", ["cogvideox", "cogvideox15", "cogvideox15_i2v"])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_computes_what_diffusers_computes(
    comfyui: ComfyUI, loras: Path, tmp_path: Path, host: str, strength: float
) -> None:
    """With a LoRA on every layer that peft can adapt, scaled by alphas in the file's metadata."""
    model = transformer(checkpoint(comfyui, host))
    inputs = network_inputs(host)
    plain = diffusers_output(model, inputs)
    targets = [*EVERY, "ofs_embedding.linear_1", "ofs_embedding.linear_2"] if "ofs" in inputs else EVERY
    add_lora(model, lora_alpha=2, target_modules=targets, rank_pattern={"to_k": 7}, alpha_pattern={"ff.net.2": 1})
    save_lora(model, loras / host, metadata=True)
    graph = Graph()
    loader = graph.add("UNETLoader", unet_name=HOSTS[host].checkpoint, weight_dtype="default")
    patched = lora(f"{host}/pytorch_lora_weights.safetensors", strength)(graph, loader)
    save_file(inputs, tmp_path / "inputs")
    graph.add("PSATestForward", model=patched, inputs=str(tmp_path / "inputs"), outputs=str(tmp_path / f"{strength}"))

    result = comfyui.client.run(graph)

    out = load_file(tmp_path / f"{strength}")["out"]
    adapted = diffusers_output(model, inputs)
    assert relative_error(adapted, plain) > 0.1
    assert relative_error(out, adapted if strength else plain) < 1e-4
    layers = 8 * 3 + len(targets) - 8
    assert shown(result, graph).startswith(f"CogVideoX LoRA: {2 * layers} of {2 * layers} keys, {layers} weights")


def network_inputs(host: str) -> Tensors:
    """Arguments of ComfyUI's network, for two clips. 1.0 gets one token a frame: rows and columns stay out of it."""
    image = HOSTS[host].conditioning == "image"
    size = (8, 12) if HOSTS[host].temporal_patch == 2 else (2, 2)
    inputs = {
        "x": torch.randn(2, 32 if image else 16, 4, *size),
        "timestep": torch.tensor([900.0, 300.0]),
        "context": torch.randn(2, 11, TEXT_DIM),
    }
    return inputs | ({"ofs": torch.full((2,), 2.0)} if image else {})


@torch.no_grad()
def diffusers_output(model: Any, inputs: Tensors) -> torch.Tensor:
    """The same forward in diffusers, ``[B, C, T, H, W]``."""
    x = inputs["x"].transpose(1, 2)
    frames = x.shape[1] // (model.config.patch_size_t or 1)
    size = (x.shape[3] // 2, x.shape[4] // 2)
    # "slice" counts tokens from 0, as 1.5 does.
    rotary = get_3d_rotary_pos_embed(64, None, size, frames, grid_type="slice", max_size=size)
    out = model(
        hidden_states=x,
        encoder_hidden_states=inputs["context"],
        timestep=inputs["timestep"],
        ofs=inputs.get("ofs"),
        image_rotary_emb=rotary,
        return_dict=False,
    )[0]
    result: torch.Tensor = out.transpose(1, 2)
    return result


def test_strength_0_changes_nothing(comfyui: ComfyUI, write_lora: WriteLoRA) -> None:
    tensors = attention_lora()[0]
    # Zero times this would be no zero.
    tensors[f"{BLOCK}.0.attn1.to_q.lora_A.weight"].fill_(torch.inf)
    graph = single_pass("cogvideox", patch=lora(write_lora(tensors), 0.0))

    result = comfyui.client.run(graph)

    assert torch.equal(comfyui.client.latent(result), comfyui.client.sample(single_pass("cogvideox")))
    assert shown(result, graph).startswith("CogVideoX LoRA: 18 of 18 keys")


def test_loaders_in_a_row_add_up_and_leave_the_first_model_alone(
    comfyui: ComfyUI, write_lora: WriteLoRA, tmp_path: Path
) -> None:
    tensors, added = attention_lora()
    name = write_lora(tensors)
    before = checkpoint(comfyui, "cogvideox")

    once = patched_weights(comfyui, tmp_path / "once", lora(name))
    thrice = patched_weights(comfyui, tmp_path / "thrice", chain(lora(name), lora(name, 2.0)))
    none = patched_weights(comfyui, tmp_path / "none", lambda graph, model: model)

    key = "blocks.2.k.weight"
    assert torch.allclose(once[key], before[key] + added[key], rtol=1e-4, atol=1e-5)
    assert torch.allclose(thrice[key], before[key] + 3 * added[key], rtol=1e-4, atol=1e-5)
    assert torch.equal(none[key], before[key])


def test_differences_of_weights_and_biases(comfyui: ComfyUI, write_lora: WriteLoRA, tmp_path: Path) -> None:
    """As ComfyUI's own Extract and Save LoRA writes them."""
    tensors = {
        "diffusion_model.blocks.0.norm1.norm.diff": torch.randn(COG_DIM),
        "diffusion_model.blocks.0.q.diff_b": torch.randn(COG_DIM),
    }

    weights = patched_weights(comfyui, tmp_path / "weights", lora(write_lora(tensors), 0.5))

    before = checkpoint(comfyui, "cogvideox")
    for changed, key in (("blocks.0.norm1.norm.weight", "norm1.norm.diff"), ("blocks.0.q.bias", "q.diff_b")):
        expected = before[changed] + 0.5 * tensors[f"diffusion_model.blocks.0.{key}"]
        assert torch.allclose(weights[changed], expected, atol=1e-6)


def test_dora_gives_rows_their_norms(comfyui: ComfyUI, write_lora: WriteLoRA, tmp_path: Path) -> None:
    """With a LoRA so small that it is all one whether the rows' norms are taken before or after it."""
    name, norms = f"{BLOCK}.0.attn1.to_v", 1 + torch.rand(COG_DIM)
    tensors = {key: 0.01 * x for key, x in pair(name, 2).items()} | {f"{name}.lora_magnitude_vector.weight": norms}

    weights = patched_weights(comfyui, tmp_path / "weights", lora(write_lora(tensors)))

    adapted = checkpoint(comfyui, "cogvideox")["blocks.0.v.weight"] + product(tensors, name)
    expected = adapted * (norms / adapted.norm(dim=1))[:, None]
    assert relative_error(weights["blocks.0.v.weight"], expected) < 1e-3
    assert relative_error(adapted, expected) > 0.1


@pytest.mark.parametrize("psa_last", [True, False])
def test_beside_the_attention_patch(comfyui: ComfyUI, write_lora: WriteLoRA, psa_last: bool) -> None:
    load = lora(write_lora(attention_lora()[0]))
    patches = (load, psa()) if psa_last else (psa(), load)
    both = single_pass("cogvideox", patch=chain(*patches))
    level_1 = {"level_1": 1.0, "level_2": 0.0, "level_4": 0.0, "level_8": 0.0}
    full = single_pass("cogvideox", patch=chain(load, psa(**level_1)) if psa_last else chain(psa(**level_1), load))

    result = comfyui.client.run(both)

    dense = comfyui.client.sample(single_pass("cogvideox", patch=load))
    assert line(result, both).sparse > 0
    assert relative_error(comfyui.client.latent(result), dense) > 1e-3
    assert relative_error(comfyui.client.sample(full), dense) < 1e-4


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 8), "x": torch.zeros(1)},
            r"lora_name = '{}': must be a LoRA for this CogVideoX model; none of its 2 keys fits: "
            r"blocks.0.self_attn.q.lora_A.weight \(no such layer in this model\), x \(no part of a LoRA\)",
        ),
        (
            pair(f"{BLOCK}.0.attn1.to_q", 2, rows=192, columns=192),
            r"none of its 2 keys fits: .*lora_A.weight \(for a weight of 192 x 192, this one has 128 x 128\)",
        ),
        ({}, r"lora_name = '{}': must be a LoRA for this CogVideoX model; it holds no tensor"),
        (
            pair(f"{BLOCK}.0.attn1.to_q", 2) | pair("blocks.0.q", 2),
            r"{}: key = '.*': changes the same weight as '.*'; keep one of the two",
        ),
    ],
    ids=["names", "size", "empty", "twice"],
)
def test_files_that_do_not_fit_are_refused(
    comfyui: ComfyUI, write_lora: WriteLoRA, tensors: Tensors, message: str
) -> None:
    name = write_lora(tensors)

    with pytest.raises(PromptFailedError, match=message.format(name)):
        comfyui.client.run(single_pass("cogvideox", patch=lora(name)))


def test_other_models_are_refused(comfyui: ComfyUI, write_lora: WriteLoRA) -> None:
    name = write_lora(attention_lora()[0])

    with pytest.raises(PromptFailedError, match=r"model = 'WAN21': must be CogVideoX; .*ComfyUI's own LoRA loader"):
        comfyui.client.run(single_pass("wan_t2v", patch=lora(name)))


def test_says_what_did_not_fit(comfyui: ComfyUI, write_lora: WriteLoRA) -> None:
    tensors = pair(f"{BLOCK}.0.attn1.to_q", 4) | {"text_model.q.lora_A.weight": torch.zeros(4, 8)}
    graph = single_pass("cogvideox", patch=lora(write_lora(tensors)))

    result = comfyui.client.run(graph)

    text = (
        "CogVideoX LoRA: 2 of 3 keys, 1 weights patched, rank 4 "
        "| not used: text_model.q.lora_A.weight (no such layer in this model)"
    )
    assert shown(result, graph) == text
    assert text in comfyui.server.log_text()


def test_lists_the_files_and_explains_itself(comfyui: ComfyUI, write_lora: WriteLoRA) -> None:
    name = write_lora(pair(f"{BLOCK}.0.attn1.to_q", 4))

    info = comfyui.client.object_info("PSACogVideoXLoRA")

    assert info is not None
    assert (info["display_name"], info["category"]) == ("CogVideoX LoRA Loader", "PSA")
    kind, options = info["input"]["required"]["lora_name"]
    assert name in (options["options"] if kind == "COMBO" else kind)
    assert {"lora", "cogvideox lora", "4 steps"} <= set(info["search_aliases"])
    assert all(settings[1]["tooltip"] for settings in info["input"]["required"].values())
    strength = info["input"]["required"]["strength_model"][1]
    assert [strength[key] for key in ("default", "min", "max", "step")] == [1.0, -100.0, 100.0, 0.01]
