"""Scenes of the Radial Mask: counted in video frames, refused before anything runs where they cannot be right."""

from __future__ import annotations

import pytest
import torch

from psa_core import compose, radial_levels, scene_levels
from psa_core.ops.levels.rules import density

from ..client import PromptFailedError, PromptRejectedError
from ..conftest import ComfyUI
from ..graphs import Settings, single_pass
from ..hosts.test_composition import context_windows
from ..psa import Widgets, line, lines, psa, relative_error
from ..tiny_models import HOSTS, LatentGrid

ROUNDED = 6e-4
# Video frames behind a frame of tokens.
HOST_FRAMES = {"wan_t2v": 4, "wan22_ti2v": 4, "cogvideox": 4, "cogvideox15": 8}
LONG: LatentGrid = (13, 16, 16)


def scene_map(host: str, boundaries: str, adjacency: str, latent: LatentGrid) -> torch.Tensor:
    """The level map of scenes on a host's clip."""
    return scene_levels(
        HOSTS[host].token_grid(latent),
        boundaries,
        adjacency,
        block_m=128,
        block_n=32,
        text_length=HOSTS[host].text_tokens if host.startswith("cogvideox") else 0,
        frames_per_token=HOST_FRAMES[host],
    )


def scenes(boundaries: str, adjacency: str = "own") -> Widgets:
    return {"sparsity_type": "dense", "scene_boundaries": boundaries, "scene_adjacency": adjacency}


@pytest.mark.parametrize(
    ("boundaries", "adjacency"),
    # 13 latent frames are 49 video frames, and a clip that was cut off ends in the last of them.
    [("0, 17, 49", "own"), ("0 13 28 47", "neighbours"), ("0, 25, 49", "1 0; 1 1")],
    ids=["own", "neighbours", "matrix"],
)
@pytest.mark.parametrize("host", HOST_FRAMES)
def test_density_is_that_of_the_scenes(comfyui: ComfyUI, host: str, boundaries: str, adjacency: str) -> None:
    expected = float(density(scene_map(host, boundaries, adjacency, LONG)))
    assert expected < 0.98
    graph = single_pass(host, Settings(latent=LONG), psa(mask=scenes(boundaries, adjacency)))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    assert set(shown.reasons) <= {"cross-attention"}
    assert shown.density == pytest.approx(expected, abs=ROUNDED)
    assert torch.isfinite(comfyui.client.latent(result)).all()


def test_scenes_that_all_see_each_other_change_nothing(comfyui: ComfyUI) -> None:
    patched = comfyui.client.sample(single_pass("wan_t2v", patch=psa(mask=scenes("0, 9, 17", "all"))))

    assert relative_error(patched, comfyui.client.sample(single_pass("wan_t2v"))) < 1e-4


def test_scenes_and_decay_cut_both(comfyui: ComfyUI) -> None:
    radial = radial_levels((5, 8, 12), block_m=128, block_n=32, model_type="wan", decay_factor=0.2, block_size=8)
    expected = float(density(compose(radial, scene_map("wan_t2v", "0, 9, 17", "own", (5, 16, 24)))))
    graph = single_pass("wan_t2v", patch=psa(mask={"scene_boundaries": "0, 9, 17", "scene_adjacency": "own"}))

    assert line(comfyui.client.run(graph), graph).density == pytest.approx(expected, abs=ROUNDED)


@pytest.mark.parametrize(
    ("host", "boundaries", "message"),
    [
        ("wan_t2v", "0, 9, 21", "21 lies beyond the end; the last must be 14 to 17, the end of a clip of 5 latent"),
        ("wan_t2v", "0, 9, 13", "13 is not the end; the last must be 14 to 17"),
        ("cogvideox", "0, 9, 33", "33 lies beyond the end"),
        ("cogvideox15", "0, 1, 17", "no frame of tokens has its middle in the scene from 0 to 1"),
    ],
)
def test_scenes_that_do_not_fit_the_clip_stop_it_before_sampling(
    comfyui: ComfyUI, host: str, boundaries: str, message: str
) -> None:
    graph = single_pass(host, patch=psa(mask=scenes(boundaries)))

    with pytest.raises(PromptFailedError, match=message):
        comfyui.client.run(graph)

    # Once sampling has begun, the patch shows a line whatever happens.
    again = comfyui.client.run(single_pass(host, patch=psa(mask=scenes(boundaries))), check=False)
    assert lines(again, graph) == []


@pytest.mark.parametrize(
    ("widgets", "word"),
    [
        ({"scene_boundaries": "0, x"}, "'x' is not a whole number"),
        ({"scene_boundaries": "5, 9"}, "must begin with 0"),
        ({"scene_boundaries": "0, 9, 9"}, "9 follows 9"),
        ({"scene_adjacency": "1 0; 0"}, "row 1 is 1 long"),
        ({"scene_adjacency": "1 2; 0 1"}, "row 0, column 1 is '2'"),
        ({"scene_adjacency": "friends"}, "friends"),
        (scenes("0, 9, 17", "1 1 1; 1 1 1; 1 1 1"), "each of 2 scenes, not 3 rows"),
    ],
)
def test_text_that_cannot_be_read_is_refused_before_anything_runs(
    comfyui: ComfyUI, widgets: Widgets, word: str
) -> None:
    with pytest.raises(PromptRejectedError) as refused:
        comfyui.client.run(single_pass("wan_t2v", patch=psa(mask=widgets)))

    (node,) = refused.value.node_errors.values()
    assert word in node["errors"][0]["details"]


@pytest.mark.parametrize("key", ["scene_boundaries", "scene_adjacency"])
def test_texts_may_come_from_other_nodes(comfyui: ComfyUI, key: str) -> None:
    mask = scenes("0, 9, 17")
    written = single_pass("wan_t2v", patch=psa(mask=mask))
    linked, broken = (single_pass("wan_t2v", patch=psa(mask=mask)) for _ in range(2))
    for graph, text in ((linked, mask[key]), (broken, "0, x")):
        (node,) = graph.nodes_of("PSARadialMask")
        graph[node]["inputs"][key] = graph.add("PrimitiveString", value=text)

    assert torch.equal(comfyui.client.sample(linked), comfyui.client.sample(written))
    with pytest.raises(PromptFailedError, match=f"Radial Mask: {key} = '0, x'"):
        comfyui.client.run(broken)


def test_windows_of_the_clip_stay_dense_and_say_so(comfyui: ComfyUI) -> None:
    settings = Settings(latent=LONG)
    windowed = comfyui.client.sample(single_pass("wan_t2v", settings, context_windows))
    patch = psa(mask=scenes("0, 13, 49"))
    graph = single_pass("wan_t2v", settings, lambda graph, model: patch(graph, context_windows(graph, model)))

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    windows = {reason for reason in shown.reasons if reason != "cross-attention"}
    assert shown.sparse == 0
    assert "the scenes do not fit a window of 5 token frames" in windows
    assert all(reason.startswith("the scenes do not fit a window of") for reason in windows)
    assert torch.equal(comfyui.client.latent(result), windowed)
