"""MiniMax H3: text, references, sound and video in one sequence, each told by the places of its rows.

| tokens | what is exact |
|---|---|
| text, keyframes or references | every query sees them |
| sound | every query sees it, and its own rows are dense |
| video, last | |
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ....ops.modes import is_traced
from ....settings.sinks import Sink
from ....settings.sizes import Grid
from ...read_once import read_once
from .family import Family, Inputs, Tokens


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents, video = call["hidden_states"], call["video_indices"]
    # Conditions and sound have noise levels of their own.
    timestep = call["timestep"].index_select(0, call["timestep_indices"].index_select(0, video[-1:]))
    # A compiled graph of the whole model cannot read the places of its rows.
    if is_traced():
        return Inputs(timestep, latents, Tokens())
    return Inputs(timestep, latents, read_once(_tokens, call["position_ids"], call["audio_indices"]))


def _tokens(positions: torch.Tensor, sound: torch.Tensor) -> Tokens:
    positions, sound = positions.cpu(), sound.cpu()
    start = int(sound[-1]) + 1
    grid = _grid(positions[start:])
    if grid is None:
        return Tokens()
    # Of the sound, the rows in one piece before the video are made anew, those before them are references.
    steps = sound.diff().flip(0)
    made = 1 + int((steps == 1).long().cumprod(0).sum())
    front = Sink(0, start - made, dense_rows=False), Sink(start - made, start)
    return Tokens(grid, front=front if start > made else front[1:])


def _grid(positions: torch.Tensor) -> Grid | None:
    """The grid of video rows with positions ``[L, 3]``: times alike in a frame, heights in a row."""
    if not len(positions):
        return None
    frame = int((positions[:, 0] == positions[0, 0]).sum())
    width = int((positions[:frame, 1] == positions[0, 1]).sum())
    grid = len(positions) // frame, frame // width, width
    return grid if math.prod(grid) == len(positions) else None


MINIMAX_H3 = Family(("transformer_blocks.*.attn",), _inputs, rising=True)
