"""Graphs that sample a tiny model of any family, built by test nodes from its config."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from .graphs import Graph, Patch

Shape = tuple[int, ...]
_nonces = itertools.count(1)


@dataclass(frozen=True)
class Family:
    """What a graph with a family's model needs.

    Attributes:
        name: of its config.
        latent: shape of the video's latent, and of the audio's if there is one.
        text_tokens, text_dim: of a prompt.
        entries: what else its conditioning has, as ``PSATestPrompt`` takes it.
        mask: of the prompt: ``"none"``, ``"ones"`` or ``"holes"``.
        more: put over its config.
    """

    name: str
    latent: tuple[Shape, ...]
    text_tokens: int = 16
    text_dim: int = 64
    entries: dict[str, Any] = field(default_factory=dict)
    mask: str = "none"
    more: dict[str, Any] = field(default_factory=dict)


def sampled(
    family: Family, patch: Patch | None = None, cfg: float = 1.0, steps: int = 2, negative_tokens: int | None = None
) -> Graph:
    """Build, patch, sample, save the video's latent; the prompts have as many tokens where nothing else is said."""
    graph = Graph()
    model = graph.add("PSATestFamily", family=family.name, more=json.dumps(family.more))
    if patch is not None:
        model = patch(graph, model)
    prompts = [
        graph.add(
            "PSATestPrompt", tokens=tokens, dim=family.text_dim, seed=seed, mask=family.mask,
            entries=json.dumps(family.entries),
        )
        for seed, tokens in ((1, family.text_tokens), (2, negative_tokens or family.text_tokens))
    ]  # fmt: skip
    latent = graph.add("PSATestStreams", shapes=json.dumps(family.latent), nonce=next(_nonces))
    out = graph.add(
        "KSampler", model=model, positive=prompts[0], negative=prompts[1], latent_image=latent, seed=3, steps=steps,
        cfg=cfg, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    video = graph.add("PSATestVideoStream", samples=out)
    graph.add("SaveLatent", samples=video, filename_prefix=f"psa_test/{family.name}")
    return graph
