"""CogVideoX Loader on a server: what diffusers computes and samples with the same file, parts of files, refusals."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers", minversion="0.35")

from psa_core.models.cogvideox.names import core_parameter

from ..checkpoints import TEXT_DIM, write_cogvideox
from ..client import PromptFailedError
from ..cogvideox_variants import TEXT_TOKENS, VARIANTS, VIDEO_CHANNELS, Variant, forward, sample
from ..conftest import ComfyUI
from ..graphs import Graph, Link, Patch
from ..psa import LEVEL_1_ONLY, line, psa, psa_default, relative_error
from ..tiny_models import HOSTS, LatentGrid

LEARNED_SIZE: LatentGrid = (1, 60, 90)
SMALL: LatentGrid = (4, 10, 16)
STEPS, CFG, SEED = 4, 6.0, 3

_numbers = itertools.count()
Load = Callable[[Graph], Link]
Publish = Callable[[str], Variant]


def loader(name: str, weight_dtype: str = "default") -> Load:
    return lambda graph: graph.add("PSACogVideoXLoader", unet_name=name, weight_dtype=weight_dtype)


def core_loader(name: str) -> Load:
    return lambda graph: graph.add("UNETLoader", unet_name=name, weight_dtype="default")


def with_velocity(load: Load) -> Load:
    """Core's own way to the noise levels of all but 2b."""
    return lambda graph: graph.add("ModelSamplingDiscrete", model=load(graph), sampling="v_prediction", zsnr=True)


@pytest.fixture(scope="module")
def folder(comfyui: ComfyUI) -> Path:
    """Where a user puts models."""
    return comfyui.server.base_directory / "models" / "diffusion_models"


@pytest.fixture(scope="module")
def publish(folder: Path) -> Publish:
    """Puts a variant there with diffusers' names, the first time that it is asked for."""

    def write(name: str) -> Variant:
        variant = VARIANTS[name]
        if not (folder / variant.checkpoint).exists():
            weights = variant.transformer().state_dict()
            save_file({key: weight.contiguous() for key, weight in weights.items()}, folder / variant.checkpoint)
        return variant

    return write


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("2b", (2, 8, 22)),
        ("2b", (3, 14, 8)),
        ("5b", (2, 60, 90)),
        ("5b", (3, 96, 40)),
        ("5b", (5, 12, 34)),
        ("5b_i2v", (1, 60, 90)),
        ("5b_i2v", (2, 60, 90)),
        ("1.5", (4, 12, 34)),
        ("1.5", (2, 96, 60)),
        ("1.5_i2v", (4, 10, 16)),
    ],
)
def test_computes_what_diffusers_computes(
    comfyui: ComfyUI, publish: Publish, tmp_path: Path, name: str, grid: LatentGrid
) -> None:
    variant = publish(name)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn((2, variant.in_channels, *grid), generator=generator),
        "timestep": torch.tensor([999.0, 417.0]),
        "context": torch.randn((2, TEXT_TOKENS, TEXT_DIM), generator=generator),
    }
    if variant.ofs:
        inputs["ofs"] = torch.full((2,), 2.0)

    out = _forward(comfyui, loader(variant.checkpoint), inputs, tmp_path)

    expected = forward(variant.transformer(grid[0]), inputs["x"], inputs["timestep"], inputs["context"])
    assert relative_error(out, expected) < 1e-5


@pytest.mark.parametrize(
    ("name", "grid"),
    [("2b", SMALL), ("5b", SMALL), ("5b_i2v", LEARNED_SIZE), ("1.5", SMALL), ("1.5_i2v", SMALL)],
)
def test_samples_what_diffusers_samples(comfyui: ComfyUI, publish: Publish, name: str, grid: LatentGrid) -> None:
    variant = publish(name)

    latent = comfyui.client.sample(_sampling(loader(variant.checkpoint), variant, grid))

    texts = torch.cat([_noise(102, 1, TEXT_TOKENS, TEXT_DIM), _noise(101, 1, TEXT_TOKENS, TEXT_DIM)])
    image = _noise(103, 1, VIDEO_CHANNELS, 1, *grid[1:]) if variant.in_channels > VIDEO_CHANNELS else None
    expected = sample(variant, grid, texts, STEPS, CFG, SEED, image)
    assert relative_error(latent, expected) < 1e-3


def test_a_file_with_core_names_gives_the_same_latent(comfyui: ComfyUI, folder: Path, publish: Publish) -> None:
    for name in ("5b", "1.5"):
        variant = publish(name)
        native = _save_native(folder, variant)
        published = comfyui.client.sample(_sampling(loader(variant.checkpoint), variant))
        assert torch.equal(comfyui.client.sample(_sampling(loader(native), variant)), published)

    # Where core's positions are right, its own loader gives it too.
    assert (
        relative_error(comfyui.client.sample(_sampling(with_velocity(core_loader(native)), variant)), published) < 1e-5
    )


def test_inpainting_models_keep_the_noise_levels_that_their_sampler_counts_on(comfyui: ComfyUI, folder: Path) -> None:
    variant = Variant("inpainting", temporal_patch=2, in_channels=48)
    native = _save_native(folder, variant)

    latent = comfyui.client.sample(_sampling(loader(native), variant))

    assert torch.equal(latent, comfyui.client.sample(_sampling(core_loader(native), variant)))


@pytest.mark.parametrize("chosen", [1, 2])
def test_any_part_of_a_model_loads_it_all(comfyui: ComfyUI, folder: Path, publish: Publish, chosen: int) -> None:
    variant = publish("5b")
    weights = list(load_file(folder / variant.checkpoint).items())
    save_file(dict(weights[::2]), folder / "parts-00001-of-00002.safetensors")
    save_file(dict(weights[1::2]), folder / "parts-00002-of-00002.safetensors")
    before = len(comfyui.server.log_text())

    latent = comfyui.client.sample(_sampling(loader(f"parts-0000{chosen}-of-00002.safetensors"), variant))

    assert torch.equal(latent, comfyui.client.sample(_sampling(loader(variant.checkpoint), variant)))
    complaints = ("unet missing", "unet unexpected", "left over keys")
    assert not [said for said in comfyui.server.log_text()[before:].splitlines() if any(x in said for x in complaints)]


def test_a_missing_part_and_other_models_are_refused(comfyui: ComfyUI, folder: Path) -> None:
    save_file({"weight": torch.zeros(1)}, folder / "half-00001-of-00002.safetensors")
    save_file({"transformer_blocks.0.norm1.linear.weight": torch.zeros(1)}, folder / "flux.safetensors")

    half = _error(comfyui, _sampling(loader("half-00001-of-00002.safetensors"), VARIANTS["5b"]))
    others = [
        _error(comfyui, _sampling(loader(name), VARIANTS["5b"]))
        for name in ("flux.safetensors", HOSTS["wan_t2v"].checkpoint)
    ]

    assert "put half-00002-of-00002.safetensors beside it" in half
    assert all("must be a CogVideoX transformer" in said for said in others)


@pytest.mark.parametrize(
    ("lost", "number", "named"),
    [
        (r"blocks\.1\.ff_proj\.bias", 1, "blocks.1.ff_proj.bias"),
        (r"blocks\.0\.attn_out\..*", 2, "blocks.0.attn_out.weight, blocks.0.attn_out.bias"),
        # ComfyUI takes it for a model of one block.
        (r"blocks\.1\..*", 24, "blocks.1."),
        (r"proj_out\..*", 2, "proj_out.weight, proj_out.bias"),
    ],
)
def test_a_file_that_lacks_weights_is_refused(
    comfyui: ComfyUI, folder: Path, lost: str, number: int, named: str
) -> None:
    weights = load_file(folder / HOSTS["cogvideox"].checkpoint)
    kept = {key: weight for key, weight in weights.items() if not re.fullmatch(lost, key)}
    assert len(weights) - len(kept) == number
    save_file(kept, folder / "incomplete.safetensors")

    said = _error(comfyui, _sampling(loader("incomplete.safetensors"), VARIANTS["5b"]))

    assert f"is incomplete: {number} weights are missing, such as {named}" in said


def test_a_2b_that_lacks_its_last_blocks_is_refused(comfyui: ComfyUI, folder: Path, publish: Publish) -> None:
    variant = publish("2b")
    weights = {key: weight.bfloat16() for key, weight in load_file(folder / variant.checkpoint).items()}
    # Text of T5-XXL tells a published model from the stand-in, whose single block is all that it has.
    weights["patch_embed.text_proj.weight"] = torch.zeros(variant.heads * 64, 4096, dtype=torch.bfloat16)
    save_file(weights, folder / "cut_2b.safetensors")

    said = _error(comfyui, _sampling(loader("cut_2b.safetensors"), variant))

    assert f"is incomplete: {29 * 24} weights are missing, such as blocks.1.norm1.linear.weight" in said


def test_weights_of_another_size_are_refused(comfyui: ComfyUI, folder: Path) -> None:
    weights = load_file(folder / HOSTS["cogvideox"].checkpoint)
    save_file(weights | {"proj_out.bias": torch.zeros(3)}, folder / "mixed.safetensors")

    said = _error(comfyui, _sampling(loader("mixed.safetensors"), VARIANTS["5b"]))

    assert "holds weights of sizes that do not fit each other" in said


@pytest.mark.parametrize(
    ("in_channels", "temporal_patch", "words"),
    [
        (33, 1, "has 33 input channels; ComfyUI samples CogVideoX of 16"),
        (33, 2, "CogVideoX-Fun InP has 33"),
        (24, 1, "has 24 input channels"),
        (32, 1, "is CogVideoX-Fun Pose or Control"),
    ],
)
def test_kin_that_comfyui_has_no_model_for_is_refused_by_name(
    comfyui: ComfyUI, folder: Path, in_channels: int, temporal_patch: int, words: str
) -> None:
    name = f"kin_{in_channels}_{temporal_patch}.safetensors"
    write_cogvideox(folder / name, 1, in_channels=in_channels, temporal_patch=temporal_patch)

    said = _error(comfyui, _sampling(loader(name), VARIANTS["5b"]))

    assert f"unet_name = '{name}'" in said
    assert words in said


@pytest.mark.parametrize("grid", [(1, 60, 88), (14, 60, 90)])
def test_learned_positions_are_of_one_size(comfyui: ComfyUI, publish: Publish, grid: LatentGrid) -> None:
    variant = publish("5b_i2v")

    said = _error(comfyui, _sampling(loader(variant.checkpoint), variant, grid))

    shown = "704 x 480, 1 frames" if grid[0] == 1 else "720 x 480, 53 frames"
    assert shown in said
    assert "learned positions of 720 x 480 and at most 49 frames" in said


def test_learned_positions_take_prompts_of_any_length(comfyui: ComfyUI, publish: Publish, tmp_path: Path) -> None:
    variant = publish("5b_i2v")
    outs = {}
    for tokens in (20, TEXT_TOKENS, TEXT_TOKENS + 10):
        inputs = {
            "x": _noise(1, 1, variant.in_channels, *LEARNED_SIZE),
            "timestep": torch.tensor([500.0]),
            "context": _noise(2, 1, TEXT_TOKENS + 10, TEXT_DIM)[:, :tokens],
        }
        outs[tokens] = _forward(comfyui, loader(variant.checkpoint), inputs, tmp_path)
    assert all(torch.isfinite(out).all() for out in outs.values())
    assert relative_error(outs[TEXT_TOKENS + 10], outs[TEXT_TOKENS]) < 0.5


@pytest.mark.parametrize("name", ["5b", "1.5"])
def test_the_patch_recognises_it_and_runs_sparse(comfyui: ComfyUI, publish: Publish, name: str) -> None:
    variant = publish(name)
    load, grid = loader(variant.checkpoint), (4, 16, 24)
    dense = comfyui.client.sample(_sampling(load, variant, grid))
    graphs = [_sampling(load, variant, grid, patch) for patch in (psa(), psa(**LEVEL_1_ONLY), psa_default())]

    results = [comfyui.client.run(graph) for graph in graphs]

    counts = [line(result, graph) for result, graph in zip(results, graphs, strict=True)]
    assert [(shown.sparse, shown.dense) for shown in counts[:2]] == [(variant.layers * STEPS, 0)] * 2
    assert set(counts[2].reasons) == {"warm-up"}
    sparse, full, _ = (comfyui.client.latent(result) for result in results)
    assert 0.001 < relative_error(sparse, dense) < 2.0
    assert relative_error(full, dense) < 1e-4


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_weights_in_8_bits(comfyui: ComfyUI, publish: Publish, weight_dtype: str) -> None:
    variant = publish("5b")
    whole = comfyui.client.sample(_sampling(loader(variant.checkpoint), variant))

    latent = comfyui.client.sample(_sampling(loader(variant.checkpoint, weight_dtype), variant))

    assert 0.001 < relative_error(latent, whole) < 0.8


def _sampling(load: Load, variant: Variant, grid: LatentGrid = SMALL, patch: Patch | None = None) -> Graph:
    """A user's graph, with noise for text and start image."""
    graph = Graph()
    model = load(graph)
    model = patch(graph, model) if patch else model
    positive, negative = (graph.add("PSATestText", tokens=TEXT_TOKENS, dim=TEXT_DIM, seed=seed) for seed in (101, 102))
    frames, height, width = grid
    if variant.in_channels == 2 * VIDEO_CHANNELS:
        size = {"frames": 1, "height": height, "width": width}
        positive = graph.add("PSATestImage", positive=positive, negative=negative, clip_vision=False, seed=103, **size)
        negative = [positive[0], 1]
    latent = graph.add(
        "PSATestLatent",
        batch_size=1,
        channels=VIDEO_CHANNELS,
        frames=frames,
        height=height,
        width=width,
        first_frame=False,
        nonce=next(_numbers),
    )
    sampled = graph.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=SEED,
        steps=STEPS,
        cfg=CFG,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )
    graph.add("SaveLatent", samples=sampled, filename_prefix="psa_test/cogvideox_loader")
    return graph


def _forward(comfyui: ComfyUI, load: Load, inputs: dict[str, torch.Tensor], folder: Path) -> torch.Tensor:
    number = next(_numbers)
    given, made = folder / f"{number}_in.safetensors", folder / f"{number}_out.safetensors"
    save_file({name: value.contiguous() for name, value in inputs.items()}, given)
    graph = Graph()
    graph.add("PSATestForward", model=load(graph), inputs=str(given), outputs=str(made))
    comfyui.client.run(graph)
    return load_file(made)["out"]


def _save_native(folder: Path, variant: Variant) -> str:
    """Write a variant with ComfyUI's names and return the file's."""
    weights = variant.transformer().state_dict()
    name = f"native_{variant.name}.safetensors"
    save_file({core_parameter(key): weight.contiguous() for key, weight in weights.items()}, folder / name)
    return name


def _error(comfyui: ComfyUI, graph: Graph) -> str:
    with pytest.raises(PromptFailedError) as error:
        comfyui.client.run(graph)
    return str(error.value.error["exception_message"])


def _noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
