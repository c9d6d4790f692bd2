"""The nodes under test, as graph hooks, and readers of the line that the patch node shows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from .client import PromptResult
from .graphs import Graph, Link, Patch

PRESET_NUMBERS: dict[str, Any] = {
    "model": "Wan2.1_1.3b",
    "preset": "psa_balanced",
    "attention": "psa",
    "level_1": 0.3,
    "level_2": 0.4,
    "level_4": 0.5,
    "level_8": 0.7,
    "level_16": 0.0,
    "level_32": 0.0,
    "level_64": 0.0,
    "level_128": 0.0,
    "mask_mode": "topk",
    "block_n": "32",
    "use_sim_mask": False,
    "warmup_steps": 0,
    "block_m": "128",
    "min_full_ratio": 0.06,
    "importance": "sampled_max",
    "sim_x2": 0.7,
    "sim_x4": 0.65,
    "sim_x8": 0.6,
    "reorder": "Gilbert",
    "tile_frames": 2,
    "tile_height": 8,
    "tile_width": 8,
}
"""Every widget of the Preset Loader: a sparse preset without warm-up."""

LEVEL_1_ONLY = {"level_1": 1.0, "level_2": 0.0, "level_4": 0.0, "level_8": 0.0}
"""Numbers that keep every block at full resolution, so that the patch must not change the picture."""


def psa(*, enabled: bool = True, backend: str = "torch", min_tokens: int = 0, **numbers: Any) -> Patch:
    """PSA Attention Patch behind a Preset Loader with `numbers` in place of the sparse preset's."""

    def patch(graph: Graph, model: Link) -> Link:
        preset = graph.add("PSAPresetLoader", **(PRESET_NUMBERS | numbers))
        return graph.add(
            "PSAAttentionPatch", model=model, enabled=enabled, backend=backend, min_tokens=min_tokens, preset=preset
        )

    return patch


def psa_default(backend: str = "torch", min_tokens: int = 0) -> Patch:
    """PSA Attention Patch alone: the model is recognised and its default preset used."""

    def patch(graph: Graph, model: Link) -> Link:
        return graph.add("PSAAttentionPatch", model=model, enabled=True, backend=backend, min_tokens=min_tokens)

    return patch


def chain(*patches: Patch) -> Patch:
    """Several hooks, the first next to the loader."""

    def patch(graph: Graph, model: Link) -> Link:
        for add in patches:
            model = add(graph, model)
        return model

    return patch


def relative_error(out: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return float((out - reference).norm() / reference.norm())


@dataclass(frozen=True)
class Line:
    """A report line, read back."""

    density: float | None
    sparse: int
    dense: int
    reasons: Counter[str] = field(default_factory=Counter)


def lines(result: PromptResult, graph: Graph) -> list[Line]:
    """What the patch nodes of a graph showed during a run, in order, a line for each sampler call."""
    nodes = graph.nodes_of("PSAAttentionPatch")
    return [_read(text) for node, text in result.progress_texts if node in nodes]


def line(result: PromptResult, graph: Graph) -> Line:
    """The only line that the patch nodes of a graph showed."""
    (only,) = lines(result, graph)
    return only


def _read(text: str) -> Line:
    found = re.fullmatch(
        r"PSA: (?:density (?P<density>[\d.]+)|no call ran sparse) \| "
        r"(?P<sparse>\d+) sparse, (?P<dense>\d+) dense(?: \((?P<reasons>.*)\))?",
        text,
    )
    assert found, text
    reasons = Counter(
        {reason: int(count) for reason, count in re.findall(r"(.+?) (\d+)(?:, |$)", found["reasons"] or "")}
    )
    density = float(found["density"]) if found["density"] else None
    assert sum(reasons.values()) == int(found["dense"])
    return Line(density, int(found["sparse"]), int(found["dense"]), reasons)
