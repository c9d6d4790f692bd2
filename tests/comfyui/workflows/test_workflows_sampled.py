"""The bundled workflows sample, with tiny random models in place of those that they name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tools.workflows import WORKFLOWS

from ..conftest import ComfyUI
from ..graphs import Graph
from ..psa import lines
from ..stand_ins import SAMPLERS, cut_down
from .test_workflows import exported

NAMES = [name for name, workflow in WORKFLOWS.items() if not workflow.runs_here]
# Each would have another reason where a workflow were wired or set wrongly.
EXPECTED = {"cross-attention", "attention within the prompt", "audio", "warm-up"}


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("name", NAMES)
def test_every_patched_model_runs_sparse(name: str, comfyui: ComfyUI) -> None:
    graph = cut_down(exported(name))

    result = comfyui.client.run(graph, timeout=120)

    assert torch.isfinite(comfyui.client.latent(result)).all()
    shown = lines(result, graph)
    assert len(shown) == patched_samplers(graph) >= len(graph.nodes_of("PSAAttentionPatch"))
    for line in shown:
        assert line.sparse > 0
        assert set(line.reasons) <= EXPECTED
    (report,) = graph.nodes_of("PSAReport")
    assert result.outputs[report]["images"]


def patched_samplers(graph: Graph) -> int:
    """How many samplers have a patched model, from a link or from their guider."""

    def patched(link: list[Any]) -> bool:
        node = graph[link[0]]
        feeding = next((node["inputs"][name] for name in ("guider", "model") if name in node["inputs"]), None)
        return node["class_type"] == "PSAAttentionPatch" or (feeding is not None and patched(feeding))

    return sum(patched([key, 0]) for key, node in graph.items() if node["class_type"] in SAMPLERS)
