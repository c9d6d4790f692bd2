"""PSA Compare: two videos in, a plot, a video and numbers out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from ..conftest import ComfyUI
from ..graphs import Graph, Link
from ..psa import picture

# 0x80 and 0x8a, as colours of flat frames.
DARK, LIGHT, STEP = 0x808080, 0x8A8A8A, 10 / 255


def test_says_how_near_a_video_is_to_its_reference(comfyui: ComfyUI) -> None:
    graph = compare(DARK, LIGHT, gain=8.0)

    result = comfyui.client.run(graph)

    numbers = shown_numbers(result.outputs, graph)
    assert numbers["psnr"] == pytest.approx(-20 * math.log10(STEP), abs=0.01)
    assert numbers["frames"]["psnr"] == pytest.approx([numbers["psnr"]] * 3)
    assert 0.9 < numbers["ssim"] < 1
    plot, difference = (comfyui.client.frames(result, node) for node in graph.nodes_of("SaveImage"))
    assert difference.shape == (3, 24, 32, 3)
    assert difference == pytest.approx(8 * STEP, abs=1 / 255)
    (node,) = graph.nodes_of("PSACompare")
    assert np.array_equal(np.asarray(picture(comfyui.server.address, result, node)), np.round(plot[0] * 255))
    assert plot.shape[2:] == (920, 3)


def test_equal_videos_are_identical_also_with_transparency(comfyui: ComfyUI) -> None:
    graph = compare(DARK, DARK, transparent=True)

    numbers = shown_numbers(comfyui.client.run(graph).outputs, graph)

    assert (numbers["psnr"], numbers["ssim"]) == ("identical", 1)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"batch_size": 2}, "PSA Compare: video = '2 frames': the reference has 3 frames: make both"),
        ({"width": 40}, "PSA Compare: video = '40 x 24': the reference has 32 x 24"),
    ],
)
def test_videos_that_do_not_fit_are_said_and_cost_no_result(
    comfyui: ComfyUI, other: dict[str, int], words: str
) -> None:
    graph = compare(DARK, LIGHT, **other)

    result = comfyui.client.run(graph)

    assert shown_numbers(result.outputs, graph)["error"].startswith(words)
    plot, difference = (comfyui.client.frames(result, node) for node in graph.nodes_of("SaveImage"))
    assert plot.shape[2:] == (920, 3)
    assert difference.shape == (3, 24, 32, 3)
    assert not difference.any()


def compare(reference: int, video: int, *, gain: float = 4.0, transparent: bool = False, **other: int) -> Graph:
    """Flat videos of three frames and these colours; the second with other sizes, or a fourth colour."""
    graph = Graph()
    first, second = flat(graph, reference), flat(graph, video, **other)
    if transparent:
        mask = graph.add("SolidMask", value=0.5, width=32, height=24)
        second = graph.add("JoinImageWithAlpha", image=second, alpha=mask)
    plot = graph.add("PSACompare", reference=first, video=second, gain=gain)
    graph.add("SaveImage", images=plot, filename_prefix="psa_test/plot")
    graph.add("SaveImage", images=[plot[0], 1], filename_prefix="psa_test/difference")
    graph.add("PreviewAny", source=[plot[0], 2])
    return graph


def flat(graph: Graph, colour: int, **other: int) -> Link:
    return graph.add("EmptyImage", **{"width": 32, "height": 24, "batch_size": 3, "color": colour, **other})


def shown_numbers(outputs: dict[str, Any], graph: Graph) -> dict[str, Any]:
    """The JSON that the graph shows."""
    (node,) = graph.nodes_of("PreviewAny")
    (text,) = outputs[node]["text"]
    numbers: dict[str, Any] = json.loads(text)
    return numbers
