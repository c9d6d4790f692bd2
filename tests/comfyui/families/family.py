"""A tiny model of a family, built by a test node from its config: model detection fixes the sizes of most of them."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..graphs import Graph, Patch

Shape = tuple[int, ...]
Sinks = tuple[tuple[int, int, bool], ...]
_nonces = itertools.count(1)

CROSS, PROMPTS_OWN, AUDIO = "cross-attention", "attention within the prompt", "audio"
# Tokens of a frame of 8 x 12, and of a video of 5.
F, V = 96, 480


class Model(NamedTuple):
    """A class in ``comfy.supported_models``, and the ``unet_config`` of one that is tiny."""

    kind: str
    config: dict[str, Any]

    def inputs(self, more: dict[str, Any]) -> dict[str, str]:
        """Of the node that builds it; ``more`` is put over its config afterwards."""
        return {"kind": self.kind, "config": repr(self.config), "more": json.dumps(more)}


@dataclass(frozen=True)
class Family:
    """What a graph with a family's model needs.

    Attributes:
        model: built from its config.
        latent: shape of the video's latent, and of the audio's if there is one.
        text_tokens, text_dim: of a prompt.
        entries: what else its conditioning has, as ``PSATestPrompt`` takes it.
        mask: of the prompt: ``"none"``, ``"ones"`` or ``"holes"``.
        more: put over its config.
    """

    model: Model
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
    model = graph.add("PSATestFamily", **family.model.inputs(family.more))
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
    graph.add("SaveLatent", samples=video, filename_prefix="psa_test/family")
    return graph


@dataclass(frozen=True)
class Case:
    """A model and its inputs, and what is expected in each step.

    Attributes:
        grid: of the video in tokens.
        sinks: tokens beside it.
        others: tokens behind it that are none.
        sparse: calls that run sparse.
        dense: calls that do not, by reason.
        parts: of calls that have a part of the grid each, their keys that are a sink's, and those that are not.
    """

    family: Family
    grid: tuple[int, int, int]
    sparse: int = 2
    dense: dict[str, int] = field(default_factory=dict)
    sinks: Sinks = ()
    others: int = 0
    parts: tuple[tuple[int, int], ...] = ()

    def levels(self) -> list[torch.Tensor]:
        """Level maps of the calls of a layer, ``[q_blocks, k_blocks]``, at level 8 but for sinks."""
        if self.parts:
            (_, own), *_ = self.parts
            frame = self.grid[1] * self.grid[2]
            queries = [own if keys == own else frame for _, keys in self.parts]
            return [
                _levels(q, sink + rest, ((rest, rest + sink, False),))
                for q, (sink, rest) in zip(queries, self.parts, strict=True)
            ]
        tokens = math.prod(self.grid) + sum(stop - start for start, stop, _ in self.sinks) + self.others
        return [_levels(tokens, tokens, self.sinks)]


def _levels(q_tokens: int, k_tokens: int, sinks: Sinks) -> torch.Tensor:
    """Blocks of 128 queries and 32 keys at level 8; those with a token of a sink at level 1, and its rows if asked."""
    levels = torch.full((math.ceil(q_tokens / 128), math.ceil(k_tokens / 32)), 8, dtype=torch.uint8)
    for start, stop, dense_rows in sinks:
        levels[:, start // 32 : math.ceil(stop / 32)] = 1
        if dense_rows:
            levels[start // 128 : math.ceil(stop / 128)] = 1
    return levels
