"""The trained tiny model in ComfyUI: the video that diffusers makes, by nodes of the pack's and by ComfyUI's own."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("skimage")

from psa_core.models.tiny_video.files import AUTOENCODER, FLOW_SHIFT, TRANSFORMER
from psa_core.models.tiny_video.model import load_pipeline
from psa_core.models.tiny_video.vocabulary import SLOTS, embed, read_prompt
from research.tiny_video.score import read_clip

from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Graph, Link, Patch
from ..psa import LEVEL_1_ONLY, line, psa, psa_default, relative_error

LAYERS, HEADS = 12, 2
PROMPT = "a red circle moving left and a green star over navy stripes"
SEED = 0


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
READABLE = Clip(length=5, height=320, width=384, steps=4)


def test_is_wan_with_every_parameter(comfyui: ComfyUI) -> None:
    comfyui.client.forget()
    before = len(comfyui.server.log_text())
    graph = _graph(SMALL, patch=_show_model)

    result = comfyui.client.run(graph)

    (shown,) = graph.nodes_of("PSATestModel")
    assert json.loads(result.texts[shown]) == {"class": "WAN21", "layers": LAYERS, "heads": [HEADS]}
    complaints = ("unet missing", "unet unexpected", "left over keys", "Missing VAE keys")
    log = comfyui.server.log_text()[before:]
    assert not [said for said in log.splitlines() if any(text in said for text in complaints)]


def test_gives_the_video_of_diffusers(comfyui: ComfyUI) -> None:
    pipeline = load_pipeline()
    graph = _graph(SMALL)

    result = comfyui.client.run(graph)

    latent = comfyui.client.latent(result)
    assert relative_error(latent, _sample(pipeline, SMALL)) < 1e-3
    frames = comfyui.client.frames(result, *graph.nodes_of("SaveImage"))
    assert frames.shape == (SMALL.length, SMALL.height, SMALL.width, 3)
    assert _psnr(frames, _decode(pipeline.vae, latent)) > 45


def test_stock_loaders_give_the_same_video(comfyui: ComfyUI) -> None:
    models = comfyui.server.base_directory / "models"
    _link(TRANSFORMER, models / "diffusion_models")
    _link(AUTOENCODER, models / "vae")
    graphs = _graph(SMALL), _graph(SMALL, stock=True)

    ours, stock = (comfyui.client.run(graph) for graph in graphs)

    assert torch.equal(comfyui.client.latent(ours), comfyui.client.latent(stock))
    ours_shown, stock_shown = (
        comfyui.client.frames(result, *graph.nodes_of("SaveImage"))
        for result, graph in zip((ours, stock), graphs, strict=True)
    )
    assert np.array_equal(ours_shown, stock_shown)


def test_shows_what_the_prompt_says_also_with_sparse_attention(comfyui: ComfyUI) -> None:
    prompt = "a blue square still over plain brown"
    graph = _graph(READABLE, prompt, psa())

    result = comfyui.client.run(graph, timeout=300)

    seen = read_clip(comfyui.client.frames(result, *graph.nodes_of("SaveImage")))
    asked = read_prompt(prompt)
    assert seen is not None
    assert (seen.colour, seen.shape) == (asked.colour, asked.shape)
    shown = line(result, graph)
    assert (shown.sparse, shown.reasons) == (LAYERS * READABLE.steps, {"cross-attention": shown.dense})


def test_sparse_attention_changes_the_video_and_level_1_alone_does_not(comfyui: ComfyUI) -> None:
    dense = comfyui.client.sample(_graph(SMALL, shown=False))
    graph = _graph(SMALL, patch=psa(), shown=False)

    result = comfyui.client.run(graph)

    sparse, shown = comfyui.client.latent(result), line(result, graph)
    assert torch.isfinite(sparse).all()
    assert 0.01 < relative_error(sparse, dense) < 2.0
    assert (shown.sparse, shown.reasons) == (LAYERS * SMALL.steps, {"cross-attention": LAYERS * SMALL.steps})
    assert shown.density is not None
    assert shown.density < 0.9
    full = comfyui.client.sample(_graph(SMALL, patch=psa(**LEVEL_1_ONLY), shown=False))
    assert relative_error(full, dense) < 1e-4


def test_a_patch_alone_knows_the_model(comfyui: ComfyUI) -> None:
    graph = _graph(SMALL, patch=psa_default(min_tokens=0, quality="fast", unknown_models="video"), shown=False)
    shown = line(comfyui.client.run(graph), graph)
    assert shown.sparse > 0
    assert shown.reasons.keys() == {"cross-attention", "warm-up"}
    # As the first release took it.
    graph = _graph(SMALL, patch=psa_default(min_tokens=0), shown=False)
    assert "240 tokens are fewer than min_tokens = 8192" in line(comfyui.client.run(graph), graph).reasons


def test_words_that_the_model_does_not_know_are_refused_before_anything_runs(comfyui: ComfyUI) -> None:
    graph = _graph(SMALL, "a red circle and a green dragon")

    with pytest.raises(PromptRejectedError, match=r"word = 'dragon': .* knows the words .*circle.*turning"):
        comfyui.client.run(graph)


def test_a_text_from_another_node_is_checked_when_it_is_there(comfyui: ComfyUI) -> None:
    comfyui.client.run(_prompt_alone(PROMPT))
    with pytest.raises(PromptFailedError, match="Tiny Video Prompt: word = 'red': is one too many"):
        comfyui.client.run(_prompt_alone("a red red circle"))


def test_the_default_prompt_and_its_tooltip_are_in_the_model_s_words(comfyui: ComfyUI) -> None:
    info = comfyui.client.object_info("PSATinyVideoPrompt")

    assert info is not None
    _, options = info["input"]["required"]["text"]
    assert read_prompt(options["default"]).shape == "circle"
    assert all(word in options["tooltip"] for slot in SLOTS for word in slot)


def _graph(
    clip: Clip, prompt: str = PROMPT, patch: Patch | None = None, stock: bool = False, shown: bool = True
) -> Graph:
    """A user's graph; with ``stock``, ComfyUI's own nodes load the model, and unless ``shown`` its latent is enough."""
    graph = Graph()
    model, vae = _load_stock(graph) if stock else _load(graph)
    if patch:
        model = patch(graph, model)
    positive, negative = (graph.add("PSATinyVideoPrompt", text=text) for text in (prompt, ""))
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
    if shown:
        decoded = graph.add("VAEDecode", samples=sampled, vae=vae)
        graph.add("SaveImage", images=decoded, filename_prefix="psa_test/tiny_video")
    return graph


def _prompt_alone(text: str) -> Graph:
    """A prompt whose text comes from another node."""
    graph = Graph()
    prompt = graph.add("PSATinyVideoPrompt", text=graph.add("PrimitiveString", value=text))
    graph.add("PreviewAny", source=prompt)
    return graph


def _load(graph: Graph) -> tuple[Link, Link]:
    """Links to MODEL and VAE."""
    model = graph.add("PSATinyVideoModel")
    return model, [model[0], 1]


def _load_stock(graph: Graph) -> tuple[Link, Link]:
    model = graph.add("UNETLoader", unet_name=TRANSFORMER.name, weight_dtype="default")
    shifted = graph.add("ModelSamplingSD3", model=model, shift=FLOW_SHIFT)
    return shifted, graph.add("VAELoader", vae_name=AUTOENCODER.name)


def _link(file: Path, folder: Path) -> None:
    """Put a file where a user puts it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file.name).symlink_to(file)


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
