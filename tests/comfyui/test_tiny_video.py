"""The trained tiny model through ComfyUI's own loaders: the video that diffusers makes, and what its prompt says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("skimage")

from psa_core.tiny_video.model import AUTOENCODER, FLOW_SHIFT, TRANSFORMER, load_pipeline
from psa_core.tiny_video.score import read_clip
from psa_core.tiny_video.vocabulary import embed, read_prompt

from .conftest import ComfyUI
from .graphs import Graph, Link, Patch
from .psa import LEVEL_1_ONLY, chain, line, psa, relative_error

LAYERS, HEADS = 12, 2
PROMPT = "a red circle moving left and a green star over navy stripes"
SEED = 0

WritePrompt = Callable[[str], str]


@dataclass(frozen=True)
class Clip:
    """A video in frames and pixels, and how it is sampled."""

    length: int
    height: int
    width: int
    steps: int
    cfg: float = 4.0

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return 1, 16, (self.length - 1) // 4 + 1, self.height // 8, self.width // 8


# Enough to compare; a picture so small shows nothing.
SMALL = Clip(length=9, height=128, width=160, steps=3)
# The picture of its training, for less long.
READABLE = Clip(length=5, height=320, width=384, steps=6)


@pytest.fixture(scope="module", autouse=True)
def _weights(comfyui: ComfyUI) -> None:
    """Both files where a user puts them."""
    for folder, file in (("diffusion_models", TRANSFORMER), ("vae", AUTOENCODER)):
        target = comfyui.server.base_directory / "models" / folder
        target.mkdir(parents=True, exist_ok=True)
        (target / file.name).symlink_to(file)


@pytest.fixture(scope="module")
def write_prompt(tmp_path_factory: pytest.TempPathFactory) -> WritePrompt:
    """Writes a prompt's embeddings into a file of its own and returns its path."""
    folder, numbers = tmp_path_factory.mktemp("prompts"), itertools.count()

    def write(prompt: str) -> str:
        path = folder / f"{next(numbers)}.safetensors"
        save_file({"embeddings": _embedded(prompt)}, path)
        return str(path)

    return write


def test_loaders_find_wan_and_every_parameter(comfyui: ComfyUI, write_prompt: WritePrompt) -> None:
    comfyui.client.forget()
    before = len(comfyui.server.log_text())
    graph = _graph(write_prompt, SMALL, patch=_show_model)

    result = comfyui.client.run(graph)

    (shown,) = graph.nodes_of("PSATestModel")
    assert json.loads(result.texts[shown]) == {"class": "WAN21", "layers": LAYERS, "heads": [HEADS]}
    complaints = ("unet missing", "unet unexpected", "left over keys", "Missing VAE keys")
    log = comfyui.server.log_text()[before:]
    assert not [said for said in log.splitlines() if any(text in said for text in complaints)]


def test_gives_the_video_of_diffusers(comfyui: ComfyUI, write_prompt: WritePrompt) -> None:
    pipeline = load_pipeline()
    graph = _graph(write_prompt, SMALL)

    result = comfyui.client.run(graph)

    latent = comfyui.client.latent(result)
    assert relative_error(latent, _sample(pipeline, SMALL)) < 1e-3
    frames = comfyui.client.frames(result, *graph.nodes_of("SaveImage"))
    assert frames.shape == (SMALL.length, SMALL.height, SMALL.width, 3)
    assert _psnr(frames, _decode(pipeline.vae, latent)) > 45


def test_shows_what_the_prompt_says_also_with_sparse_attention(comfyui: ComfyUI, write_prompt: WritePrompt) -> None:
    prompt = "a blue square still over plain brown"
    graph = _graph(write_prompt, READABLE, prompt, psa())

    result = comfyui.client.run(graph, timeout=300)

    seen = read_clip(comfyui.client.frames(result, *graph.nodes_of("SaveImage")))
    asked = read_prompt(prompt)
    assert seen is not None
    assert (seen.colour, seen.shape) == (asked.colour, asked.shape)
    shown = line(result, graph)
    assert (shown.sparse, shown.reasons) == (LAYERS * READABLE.steps, {"cross-attention": shown.dense})


def test_sparse_attention_changes_the_video_and_level_1_alone_does_not(
    comfyui: ComfyUI, write_prompt: WritePrompt
) -> None:
    dense = comfyui.client.sample(_graph(write_prompt, SMALL))
    graph = _graph(write_prompt, SMALL, patch=psa())

    result = comfyui.client.run(graph)

    sparse, shown = comfyui.client.latent(result), line(result, graph)
    assert torch.isfinite(sparse).all()
    assert 0.01 < relative_error(sparse, dense) < 2.0
    assert (shown.sparse, shown.reasons) == (LAYERS * SMALL.steps, {"cross-attention": LAYERS * SMALL.steps})
    assert shown.density is not None
    assert shown.density < 0.9
    full = comfyui.client.sample(_graph(write_prompt, SMALL, patch=psa(**LEVEL_1_ONLY)))
    assert relative_error(full, dense) < 1e-4


def _graph(write_prompt: WritePrompt, clip: Clip, prompt: str = PROMPT, patch: Patch | None = None) -> Graph:
    """A user's graph: every node but the two prompts is ComfyUI's own or the pack's."""
    graph = Graph()
    model = graph.add("UNETLoader", unet_name=TRANSFORMER.name, weight_dtype="default")
    model = chain(_shift, *([patch] if patch else []))(graph, model)
    positive, negative = (graph.add("PSATestEmbeddings", path=write_prompt(text)) for text in (prompt, ""))
    size = {"length": clip.length, "height": clip.height, "width": clip.width}
    latent = graph.add("EmptyHunyuanLatentVideo", batch_size=1, **size)
    sampled = graph.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=SEED,
        steps=clip.steps,
        cfg=clip.cfg,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )
    graph.add("SaveLatent", samples=sampled, filename_prefix="psa_test/tiny_video")
    decoded = graph.add("VAEDecode", samples=sampled, vae=graph.add("VAELoader", vae_name=AUTOENCODER.name))
    graph.add("SaveImage", images=decoded, filename_prefix="psa_test/tiny_video")
    return graph


def _shift(graph: Graph, model: Link) -> Link:
    return graph.add("ModelSamplingSD3", model=model, shift=FLOW_SHIFT)


def _show_model(graph: Graph, model: Link) -> Link:
    return graph.add("PSATestModel", model=model)


def _embedded(prompt: str) -> torch.Tensor:
    return embed(read_prompt(prompt))[None]


@torch.no_grad()
def _sample(pipeline: Any, clip: Clip) -> torch.Tensor:
    """The latent of KSampler with euler and simple, by diffusers' transformer; scaled as the autoencoder takes it."""
    x = torch.randn(clip.latent_shape, generator=torch.Generator().manual_seed(SEED))
    texts = torch.cat([_embedded(""), _embedded(PROMPT)])
    sigmas = _sigmas(clip.steps)
    for sigma, following in itertools.pairwise(sigmas):
        times = torch.full((2,), 1000 * sigma)
        away, towards = pipeline.transformer(torch.cat([x, x]), times, texts, return_dict=False)[0]
        x = x + (following - sigma) * (away + clip.cfg * (towards - away))
    mean, std = (
        torch.tensor(numbers).view(1, -1, 1, 1, 1)
        for numbers in (pipeline.vae.config.latents_mean, pipeline.vae.config.latents_std)
    )
    return x * std + mean


def _sigmas(steps: int) -> list[float]:
    """Every so many of 1000 shifted noise levels, from the highest, and zero."""
    evenly = [(1000 - i * 1000 // steps) / 1000 for i in range(steps)]
    return [*(FLOW_SHIFT * level / (1 + (FLOW_SHIFT - 1) * level) for level in evenly), 0.0]


@torch.no_grad()
def _decode(autoencoder: Any, latent: torch.Tensor) -> np.ndarray:
    """Frames ``[frames, height, width, 3]`` from 0 to 1."""
    video = autoencoder.decode(latent, return_dict=False)[0][0]
    frames: np.ndarray = (video / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).numpy()
    return frames


def _psnr(frames: np.ndarray, reference: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(frames - reference).mean()))
