"""Frames beside the clip: scenes count the clip's own, and Animate 2's pose is called what it is."""

from __future__ import annotations

import pytest
import torch

from psa_core import scene_levels
from psa_core.ops.levels.rules import density

from ..client import PromptFailedError
from ..conftest import ComfyUI
from ..graphs import Graph, Settings, single_pass, with_reference
from ..psa import line, psa, relative_error
from ..tiny_models import LatentGrid

CLIP: LatentGrid = (13, 16, 16)
BOUNDARIES = "0, 25, 49"
ROUNDED = 6e-4


def scenes(adjacency: str, boundaries: str = BOUNDARIES) -> dict[str, str]:
    return {"sparsity_type": "dense", "scene_boundaries": boundaries, "scene_adjacency": adjacency}


def vace(references: int, adjacency: str = "own", boundaries: str = BOUNDARIES) -> Graph:
    """The clip with so many reference frames before it."""
    settings = Settings(latent=(CLIP[0] + references, *CLIP[1:]), vace_references=references)
    return single_pass("wan_vace", settings, psa(mask=scenes(adjacency, boundaries)))


def phantom(subjects: int, adjacency: str = "own", patched: bool = True) -> Graph:
    """The clip with so many subjects after it."""
    patch = psa(mask=scenes(adjacency)) if patched else None
    return with_reference(
        single_pass("wan_t2v", Settings(latent=CLIP), patch), "time_dim_concat", (subjects, *CLIP[1:])
    )


def expected_density(before: int, after: int) -> float:
    grid = (CLIP[0] + before + after, CLIP[1] // 2, CLIP[2] // 2)
    levels = scene_levels(
        grid, BOUNDARIES, "own", block_m=128, block_n=32, frames_per_token=4, reference_frames=(before, after)
    )
    return float(density(levels))


@pytest.mark.parametrize("references", [0, 1, 2])
def test_vaces_references_come_before_the_clip(comfyui: ComfyUI, references: int) -> None:
    graph = vace(references)

    shown = line(comfyui.client.run(graph), graph)

    assert set(shown.reasons) == {"cross-attention"}
    assert shown.density == pytest.approx(expected_density(references, 0), abs=ROUNDED)


def test_an_end_that_is_not_the_clips_is_named_in_its_frames(comfyui: ComfyUI) -> None:
    message = r"53 lies beyond the end; the last must be 46 to 49.* 13 latent frames"
    with pytest.raises(PromptFailedError, match=message):
        comfyui.client.run(vace(1, boundaries="0, 25, 53"))


def test_conditionings_that_disagree_leave_scenes_dense_and_say_so(comfyui: ComfyUI) -> None:
    graph = vace(1)
    (sampler,), (both,) = graph.nodes_of("KSampler"), graph.nodes_of("PSATestVace")
    other = graph.add("PSATestVace", **(graph[both]["inputs"] | {"references": 0}))
    graph[sampler]["inputs"]["negative"] = [other[0], 1]

    shown = line(comfyui.client.run(graph), graph)

    assert shown.sparse == 0
    assert "scenes in a clip with an unknown number of reference frames" in shown.reasons


def test_phantoms_subjects_come_after_the_clip(comfyui: ComfyUI) -> None:
    graph = phantom(2)

    shown = line(comfyui.client.run(graph), graph)

    assert set(shown.reasons) == {"cross-attention"}
    assert shown.density == pytest.approx(expected_density(0, 2), abs=ROUNDED)
    seeing = comfyui.client.sample(phantom(2, "all"))
    assert relative_error(seeing, comfyui.client.sample(phantom(2, patched=False))) < 1e-4


def test_attention_with_animate_2s_pose_is_not_called_cross_attention(comfyui: ComfyUI) -> None:
    frames, *size = latent = (5, 16, 24)
    pose = ("pose_video_latent", (frames - 1, *size))
    settings = Settings(latent=latent, steps=1, cfg=1.0)
    dense = comfyui.client.sample(with_reference(single_pass("wan_animate2", settings), *pose))
    graph = with_reference(single_pass("wan_animate2", settings, psa()), *pose)

    result = comfyui.client.run(graph)

    shown = line(result, graph)
    # In each of two layers the pose's own, and one call a frame. Text and image: cross-attention of clip and pose.
    assert shown.reasons == {"attention with the pose video": 2 * (1 + frames), "cross-attention": 2 * 4}
    assert torch.equal(comfyui.client.latent(result), dense)


def test_animate_2_without_a_pose_counts_scenes_behind_its_reference(comfyui: ComfyUI) -> None:
    settings = Settings(latent=(CLIP[0] + 1, *CLIP[1:]))
    graph = single_pass("wan_animate2", settings, psa(mask=scenes("own")))

    shown = line(comfyui.client.run(graph), graph)

    assert set(shown.reasons) == {"cross-attention"}
    assert shown.density == pytest.approx(expected_density(1, 0), abs=ROUNDED)
