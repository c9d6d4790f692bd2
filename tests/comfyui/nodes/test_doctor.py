"""PSA Doctor on a server without a GPU: what it finds, and that it says why it measures nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from psa_core import __version__
from psa_core.apps.bench.results import Machine

from ..client import PromptResult
from ..conftest import ComfyUI
from ..graphs import Graph
from ..psa import picture
from ..tiny_models import HOSTS

SIZE = {"width": 832, "height": 480, "frames": 81}


def doctor(host: str | None = None, patch: Any = None, **size: int) -> Graph:
    """The node alone, or behind a loader of a tiny model and a patch."""
    graph = Graph()
    inputs: dict[str, Any] = SIZE | size
    if host:
        inputs["model"] = graph.add("UNETLoader", unet_name=HOSTS[host].checkpoint, weight_dtype="default")
        inputs["model"] = patch(graph, inputs["model"]) if patch else inputs["model"]
    shown = graph.add("PSADoctor", **inputs)
    for output in (1, 2):
        graph.add("PreviewAny", source=[shown[0], output])
    graph.add("SaveImage", images=shown, filename_prefix="psa_test/doctor")
    return graph


def said(result: PromptResult, graph: Graph) -> tuple[str, dict[str, Any]]:
    """The text, and the JSON read."""
    texts = [result.outputs[node]["text"][0] for node in graph.nodes_of("PreviewAny")]
    return texts[0], json.loads(texts[1])


def test_without_a_gpu_it_says_what_is_here_and_why_nothing_is_measured(comfyui: ComfyUI) -> None:
    graph = doctor()

    result = comfyui.client.run(graph)

    text, report = said(result, graph)
    assert "Not measured: measuring speed" in text
    assert "ms" not in text.split("Not measured", 1)[1]
    assert report["rows"] == []
    assert report["not_measured"] in text
    for fact in ("psa  ", "ComfyUI", "models on cpu", "attention: ComfyUI's own (", "user/psa_presets"):
        assert fact in text
    assert report["findings"] == text.splitlines()[: len(report["findings"])]
    assert report["machine"].keys() == Machine.__dataclass_fields__.keys()
    assert report["machine"]["psa"] == __version__
    assert report["machine"]["comfyui"]
    assert "32,760 tokens (Wan2.1_1.3b, 832 x 480, 81 frames), 12 heads of 128" in report["clip"]


def test_the_picture_is_shown_and_handed_on(comfyui: ComfyUI) -> None:
    graph = doctor()

    result = comfyui.client.run(graph)

    (node,) = graph.nodes_of("PSADoctor")
    (saved,) = graph.nodes_of("SaveImage")
    shown = np.asarray(picture(comfyui.server.address, result, node))
    assert shown.shape[1:] == (920, 3)
    assert np.array_equal(shown, np.round(comfyui.client.frames(result, saved)[0] * 255))
    assert len(np.unique(shown)) > 10


@pytest.mark.parametrize(
    ("host", "clip"),
    [
        ("wan_t2v", "32,760 tokens (Wan2.1_1.3b, 832 x 480, 81 frames), 2 heads of 128"),
        ("wan22_ti2v", "8,190 tokens (Wan2.2_5B, 832 x 480, 81 frames), 2 heads of 128"),
        ("cogvideox", "32,986 tokens (CogVideo_2b, 832 x 480, 81 frames), 2 heads of 64"),
        ("cogvideox15", "17,386 tokens (CogVideo1.5_5b, 832 x 480, 81 frames), 2 heads of 64"),
    ],
)
def test_a_model_gives_its_heads_and_family(comfyui: ComfyUI, host: str, clip: str) -> None:
    graph = doctor(host)

    _, report = said(comfyui.client.run(graph), graph)

    assert report["clip"] == clip


def test_an_attention_that_another_node_has_set_is_the_one_to_measure(comfyui: ComfyUI) -> None:
    graph = doctor(
        "wan_t2v", lambda graph, model: graph.add("ModelAttentionBackend", model=model, attention="pytorch attention")
    )

    text, _ = said(comfyui.client.run(graph), graph)

    assert "attention: ComfyUI's own (pytorch)" in text


def test_it_runs_without_matplotlib(odd_comfyui: ComfyUI) -> None:
    graph = doctor()

    text, _ = said(odd_comfyui.client.run(graph), graph)

    assert "Not measured" in text
