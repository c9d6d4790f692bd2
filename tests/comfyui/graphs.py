"""API-format graphs that sample the tiny models, with a hook for the nodes under test.

Every graph built carries its own nonce on the empty latent: a rebuilt graph samples again although ComfyUI caches
node outputs, while its loader and whatever the hook inserted stay cached, as they do for a user who queues twice.
Running the same graph object twice is answered from the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .checkpoints import TEXT_DIM
from .tiny_models import HOSTS, Host, LatentGrid

Link = list[Any]
"""A connection: node id and output index."""


class Graph(dict[str, dict[str, Any]]):
    """An API-format prompt: node id to `class_type` and `inputs`."""

    def add(self, class_type: str, /, **inputs: Any) -> Link:
        """Append a node and return the link to its first output."""
        node_id = str(len(self) + 1)
        self[node_id] = {"class_type": class_type, "inputs": inputs}
        return [node_id, 0]

    def nodes_of(self, class_type: str) -> list[str]:
        """Ids of all nodes of one class, in the order they were added."""
        return [node_id for node_id, node in self.items() if node["class_type"] == class_type]


Patch = Callable[[Graph, Link], Link]
"""Adds nodes behind a MODEL link and returns the MODEL link that goes on to the sampler."""


@dataclass(frozen=True)
class Settings:
    """What a sampling graph may vary; None stands for the host's own default."""

    latent: LatentGrid | None = None
    batch_size: int = 1
    steps: int = 2
    cfg: float = 5.0
    seed: int = 0
    sampler_name: str = "euler"
    scheduler: str = "simple"
    positive_tokens: int | None = None
    negative_tokens: int | None = None
    clip_vision: bool | None = None
    first_frame: bool = False
    """Wan 2.2 TI2V's image-to-video: a latent whose first frame is given and masked from noise."""
    vace_strength: float = 1.0
    vace_references: int = 0
    """Of the latent's frames; they come first."""


_nonces = itertools.count(1)


def single_pass(host_name: str, settings: Settings = Settings(), patch: Patch | None = None) -> Graph:
    """Load, patch, sample with one KSampler, save the latent."""
    host = HOSTS[host_name]
    graph = Graph()
    model = _load(graph, host, patch)
    positive, negative, latent = _conditioned_latent(graph, host, settings)
    sampled = graph.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=settings.seed,
        steps=settings.steps,
        cfg=settings.cfg,
        sampler_name=settings.sampler_name,
        scheduler=settings.scheduler,
        denoise=1.0,
    )
    graph.add("SaveLatent", samples=sampled, filename_prefix=f"psa_test/{host.name}")
    return graph


def two_segments(
    host_name: str,
    settings: Settings = Settings(steps=4),
    patch: Patch | None = None,
    low_noise_host_name: str | None = None,
    low_noise_patch: Patch | None = None,
    switch_step: int = 2,
) -> Graph:
    """Sample in two KSamplerAdvanced calls that share one schedule, as Wan 2.2's high and low noise models do.

    Without `low_noise_host_name` both calls get the very same patched model. With it the second model is loaded from
    that host's checkpoint and patched by `low_noise_patch`, which may be None to leave it alone.
    """
    host = HOSTS[host_name]
    graph = Graph()
    high = _load(graph, host, patch)
    low = _load(graph, HOSTS[low_noise_host_name], low_noise_patch) if low_noise_host_name else high
    positive, negative, latent = _conditioned_latent(graph, host, settings)
    for is_first, model in ((True, high), (False, low)):
        latent = graph.add(
            "KSamplerAdvanced",
            model=model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            add_noise="enable" if is_first else "disable",
            noise_seed=settings.seed,
            steps=settings.steps,
            cfg=settings.cfg,
            sampler_name=settings.sampler_name,
            scheduler=settings.scheduler,
            start_at_step=0 if is_first else switch_step,
            end_at_step=switch_step if is_first else settings.steps,
            return_with_leftover_noise="enable" if is_first else "disable",
        )
    graph.add("SaveLatent", samples=latent, filename_prefix=f"psa_test/{host.name}_two_segments")
    return graph


def given_sigmas(host_name: str, *lists: Sequence[float], patch: Patch | None = None) -> Graph:
    """Sample with one SamplerCustom a list of sigmas, one after another, and the very same patched model."""
    host = HOSTS[host_name]
    graph = Graph()
    model = _load(graph, host, patch)
    positive, negative, latent = _conditioned_latent(graph, host, Settings())
    sampler = graph.add("KSamplerSelect", sampler_name="euler")
    for sigmas in lists:
        latent = graph.add(
            "SamplerCustom",
            model=model,
            add_noise=sigmas is lists[0],
            noise_seed=0,
            cfg=1.0,
            positive=positive,
            negative=negative,
            sampler=sampler,
            sigmas=graph.add("ManualSigmas", sigmas=", ".join(map(str, sigmas))),
            latent_image=latent,
        )
    graph.add("SaveLatent", samples=latent, filename_prefix=f"psa_test/{host.name}_given_sigmas")
    return graph


def with_reference(graph: Graph, entry: str, latent: LatentGrid) -> Graph:
    """A graph with another video beside each conditioning, under the key that a core node uses for it."""
    size = dict(zip(("frames", "height", "width"), latent, strict=True))
    (sampler,) = graph.nodes_of("KSampler")
    inputs = graph[sampler]["inputs"]
    for key in ("positive", "negative"):
        inputs[key] = graph.add("PSATestReference", conditioning=inputs[key], entry=entry, seed=5, **size)
    return graph


def _load(graph: Graph, host: Host, patch: Patch | None) -> Link:
    model = graph.add("UNETLoader", unet_name=host.checkpoint, weight_dtype="default")
    return patch(graph, model) if patch else model


def _conditioned_latent(graph: Graph, host: Host, settings: Settings) -> tuple[Link, Link, Link]:
    """Positive, negative and the empty latent, with the extra conditioning that the host takes."""
    positive_tokens = host.text_tokens if settings.positive_tokens is None else settings.positive_tokens
    negative_tokens = host.text_tokens if settings.negative_tokens is None else settings.negative_tokens
    positive = graph.add("PSATestText", tokens=positive_tokens, dim=TEXT_DIM, seed=101)
    negative = graph.add("PSATestText", tokens=negative_tokens, dim=TEXT_DIM, seed=102)
    frames, height, width = settings.latent or host.latent
    size: dict[str, int] = {"frames": frames, "height": height, "width": width}
    if host.conditioning == "image":
        clip_vision = host.clip_vision if settings.clip_vision is None else settings.clip_vision
        positive = graph.add(
            "PSATestImage", positive=positive, negative=negative, clip_vision=clip_vision, seed=103, **size
        )
        negative = [positive[0], 1]
    elif host.conditioning == "vace":
        positive = graph.add(
            "PSATestVace",
            positive=positive,
            negative=negative,
            strength=settings.vace_strength,
            references=settings.vace_references,
            seed=104,
            **size,
        )
        negative = [positive[0], 1]
    latent = graph.add(
        "PSATestLatent",
        batch_size=settings.batch_size,
        channels=host.channels,
        first_frame=settings.first_frame,
        nonce=next(_nonces),
        **size,
    )
    return positive, negative, latent
