"""The nodes under test, as graph hooks, and readers of what they show."""

from __future__ import annotations

import io
import json
import re
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from .client import PromptResult
from .graphs import Graph, Link, Patch

Widgets = dict[str, Any]

PRESET_NUMBERS: Widgets = {
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
    "warmup_steps": "0",
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
    "target_density": 0.15,
    "target_error": 0.0,
}
"""Every widget of the Preset Loader: a sparse preset without warm-up."""

MASK_WIDGETS: Widgets = {
    "video_length": "custom",
    "mode": "radial only",
    "decay_factor": 0.2,
    "dense_layers": 0,
    "dense_timesteps": "0",
    "last_dense_timesteps": "0",
    "model_type": "auto",
    "block_size": 8,
    "sparsity_type": "radial",
    "scene_boundaries": "",
    "scene_adjacency": "neighbours",
    "preview_width": 832,
    "preview_height": 480,
    "preview_frames": 81,
}
"""Every widget of the Radial Mask: narrow enough to cut something from a tiny clip, at every step and layer."""

SCHEDULE_WIDGETS: Widgets = {
    "warmup": "preset",
    "last_dense": "0",
    "dense_layers": "",
    "curve": "preset",
    "start_1": 0.4,
    "start_2": 0.5,
    "start_4": 0.6,
    "start_8": 0.8,
    "end_1": 0.1,
    "end_2": 0.15,
    "end_4": 0.2,
    "end_8": 0.4,
    "preview_steps": 30,
}
"""Every widget that the Sparsity Schedule had in 0.1.0: one that changes nothing."""

ADDED_SCHEDULE_WIDGETS: Widgets = {"steps": 0, "start_step": 0, "start_percent": 0.0, "end_percent": 1.0}
"""The others, which graphs and prompts of 0.1.0 come without."""

LEVEL_1_ONLY = {"level_1": 1.0, "level_2": 0.0, "level_4": 0.0, "level_8": 0.0}
"""Numbers that keep every block at full resolution, so that the patch must not change the picture."""

LEVEL_8_ONLY = {"level_1": 0.0, "level_2": 0.0, "level_4": 0.0, "level_8": 1.0, "mask_mode": "topk"}
"""Numbers that pool every block by 8, whatever attention there is: rounding decides nothing."""


def psa(
    *,
    enabled: bool = True,
    backend: str = "torch",
    min_tokens: int = 1,
    mask: Widgets | None = None,
    schedule: Widgets | None = None,
    quality: str | None = None,
    unknown_models: str | None = None,
    dense_backend: str | None = None,
    **numbers: Any,
) -> Patch:
    """PSA Attention Patch behind a Preset Loader with `numbers` in place of the sparse preset's.

    `mask` and `schedule` are widgets in place of the helper's; None leaves the node out and its socket open, and
    `quality`, `unknown_models` and `dense_backend` out of the prompt.
    """

    def patch(graph: Graph, model: Link) -> Link:
        links = {"preset": graph.add("PSAPresetLoader", **(PRESET_NUMBERS | numbers))}
        if mask is not None:
            links["mask"] = graph.add("PSARadialMask", **(MASK_WIDGETS | mask))
        if schedule is not None:
            links["schedule"] = graph.add("PSASparsitySchedule", **(SCHEDULE_WIDGETS | schedule))
        added = {"quality": quality, "unknown_models": unknown_models, "dense_backend": dense_backend}
        given = {key: value for key, value in added.items() if value is not None}
        return graph.add(
            "PSAAttentionPatch", model=model, enabled=enabled, backend=backend, min_tokens=min_tokens, **given, **links
        )

    return patch


def by_name(model: str, preset: str, min_tokens: int = 1, unknown_models: str | None = None, **numbers: Any) -> Patch:
    """PSA Attention Patch behind a Preset Loader with a preset's name and no numbers but these."""
    given: Widgets = {"enabled": True, "backend": "torch", "min_tokens": min_tokens}
    if unknown_models is not None:
        given["unknown_models"] = unknown_models

    def patch(graph: Graph, link: Link) -> Link:
        loader = graph.add("PSAPresetLoader", model=model, preset=preset, **numbers)
        return graph.add("PSAAttentionPatch", model=link, preset=loader, **given)

    return patch


def psa_default(backend: str = "torch", min_tokens: int = 1, **widgets: Any) -> Patch:
    """PSA Attention Patch alone: the model is recognised, and its default preset used where no quality is given."""

    def patch(graph: Graph, model: Link) -> Link:
        return graph.add(
            "PSAAttentionPatch", model=model, enabled=True, backend=backend, min_tokens=min_tokens, **widgets
        )

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
    error: float | None = None
    asked: float | None = None


def lines(result: PromptResult, graph: Graph) -> list[Line]:
    """What the patch nodes of a graph showed during a run, in order, a line for each sampler call, without remarks."""
    nodes = graph.nodes_of("PSAAttentionPatch")
    return [_read(text.partition("\n")[0]) for node, text in result.said if node in nodes and _ENDED.match(text)]


def line(result: PromptResult, graph: Graph) -> Line:
    """The only line that the patch nodes of a graph showed."""
    (only,) = lines(result, graph)
    return only


def remarks(result: PromptResult, graph: Graph) -> list[str]:
    """What stands below the line on the only patch node of a graph."""
    (node,) = graph.nodes_of("PSAAttentionPatch")
    return result.lines[node].split("\n")[1:]


def picture(address: str, result: PromptResult, node: str) -> Image.Image:
    """The picture that a node showed on itself, as the front end gets it."""
    (shown,) = result.outputs[node]["images"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/view?{urllib.parse.urlencode(shown)}", timeout=30) as response:
        assert response.headers["Content-Type"] == "image/png"
        return Image.open(io.BytesIO(response.read())).convert("RGB")


def listed(address: str) -> dict[str, Any]:
    """What ``GET /psa/presets`` answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/psa/presets", timeout=30) as response:
        content: dict[str, Any] = json.load(response)
    return content


# What stands there while a run goes on is another matter.
_ENDED = re.compile(r"PSA: (error|density|no call ran sparse)")


def _read(text: str) -> Line:
    found = re.fullmatch(
        r"PSA: (?:error (?:below )?(?P<error>[\d.]+) %(?: \(asked (?P<asked>[\d.]+) %\))?, )?"
        r"(?:density (?P<density>[\d.]+)|no call ran sparse) \| "
        r"(?P<sparse>\d+) sparse, (?P<dense>\d+) dense(?: \((?P<reasons>.*)\))?",
        text,
    )
    assert found, text
    reasons = Counter(
        {reason: int(count) for reason, count in re.findall(r"(.+?) (\d+)(?:, |$)", found["reasons"] or "")}
    )
    density = float(found["density"]) if found["density"] else None
    error, asked = (float(found[key]) / 100 if found[key] else None for key in ("error", "asked"))
    assert sum(reasons.values()) == int(found["dense"])
    return Line(density, int(found["sparse"]), int(found["dense"]), reasons, error, asked)
