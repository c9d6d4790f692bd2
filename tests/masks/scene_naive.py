"""The scene mask token by token. The oracle of ``psa_core.masks.scene``, for small sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from psa_core.settings.sizes import Grid


def scene_levels_naive(
    grid: Grid,
    boundaries: Sequence[int],
    adjacency: str | Sequence[Sequence[bool]] = "neighbours",
    *,
    block_m: int,
    block_n: int,
    text_length: int = 0,
    frames_per_token: int = 1,
    reference_frames: Sequence[int] = (0, 0),
) -> torch.Tensor:
    """The level map from the whole token mask; arguments and result as in ``psa_core.masks.scene.scene_levels``."""
    frames, height, width = grid
    s = height * width
    tokens = text_length + frames * s
    mask = torch.ones(tokens, tokens, dtype=torch.bool)
    before, after = reference_frames
    clip = range(frames - before - after)
    scene = [scene_of_frame(g, frames_per_token, boundaries) for g in clip]
    for i in clip:
        for j in clip:
            rows, columns = text_length + (before + i) * s, text_length + (before + j) * s
            mask[rows : rows + s, columns : columns + s] = _may_see(scene[i], scene[j], adjacency)
    levels = torch.empty(-(-tokens // block_m), -(-tokens // block_n), dtype=torch.uint8)
    for i, some_rows in enumerate(mask.split(block_m, 0)):
        for j, block in enumerate(some_rows.split(block_n, 1)):
            has_text = i * block_m < text_length or j * block_n < text_length
            levels[i, j] = has_text or bool(block.any())
    return levels[None, None]


def scene_of_frame(frame: int, frames_per_token: int, boundaries: Sequence[int]) -> int:
    """The scene of a frame of tokens, from lists of the video frames that each one holds."""
    video_frames = list(range(boundaries[-1]))
    held = []
    for g in range(frame + 1):
        # Of groups of four, the first has one video frame alone.
        count = {1: 1, 4: 4 if g else 1, 8: 8 if g else 5}[frames_per_token]
        held, video_frames = video_frames[:count], video_frames[count:]
    middle = (held[0] + held[-1]) // 2
    return max(i for i in range(len(boundaries) - 1) if boundaries[i] <= middle)


def _may_see(query_scene: int, key_scene: int, adjacency: str | Sequence[Sequence[bool]]) -> bool:
    if adjacency == "all":
        return True
    if adjacency == "own":
        return query_scene == key_scene
    if adjacency == "neighbours":
        return abs(query_scene - key_scene) <= 1
    return bool(adjacency[query_scene][key_scene])
