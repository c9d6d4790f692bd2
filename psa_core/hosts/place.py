"""Where in a sampling run an attention call stands."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from ..settings.at_step import ALL_STEPS, Steps
from ..settings.sinks import Sinks, sink_tokens
from ..settings.sizes import Grid


@dataclass(frozen=True)
class Place:
    """Where in the denoising and in the model an attention call stands.

    Attributes:
        step: denoising step, counted over the whole denoising.
        layer: transformer block.
        grid: (frames, height, width) of the video in tokens; None when unknown.
        sinks: tokens beside the video that every query sees at full resolution.
        steps: of the whole denoising; None when unknown.
        frames_per_token: video frames behind a frame of tokens (``RadialMask.frames_per_token``).
        in_window: whether the schedule's window of the denoising has it.
        window_steps: the steps that this window has, as far as they are known.
        model_stop: the first step of the model that takes over from this one; infinite where none does.
        reference_frames: frames of the grid before and after the clip (``RadialMask.reference_frames``); None when
            unknown.
        expert: which of the models that share a run, such as Wan 2.2's two experts, counted from 0.
        condition: what else tells the calls of a layer in one step apart.
        conditions: how many of those that guidance compares, such as with the prompt and without, stand side by side
            in the batch. They have the same latents, and they share recipes and level maps: guidance multiplies their
            difference, and with it whatever sparse attention does to the one and not to the other.
        others: tokens behind the video that are neither its own nor a sink's.
        in_parts: whether queries are a part of the video's, which ``window`` tells from the others.
        causal: whether tokens see only those in front of them; queries are then the last of the keys.
        grid_optional: whether tokens may be cut into blocks in the order they have where the grid is unknown.
        first_head: which of the layer's heads is the call's first, where GPUs share them; None where it has all.
        window: which part of the clip it is, where a model sees it in parts; None for the whole.
        replica: which copy of the model it runs in, where several GPUs have one each.
    """

    step: int
    layer: int
    grid: Grid | None
    sinks: Sinks = ()
    steps: int | None = None
    frames_per_token: int = 1
    in_window: bool = True
    reference_frames: tuple[int, int] | None = (0, 0)
    expert: int = 0
    condition: Hashable = None
    conditions: int = 1
    window: Hashable = None
    others: int = 0
    grid_optional: bool = False
    in_parts: bool = False
    causal: bool = False
    replica: Hashable = None
    window_steps: Steps = ALL_STEPS
    model_stop: float = math.inf
    first_head: int | None = None

    @property
    def clip_frames(self) -> int:
        """Frames of the grid that are the clip's own; the grid must be known."""
        assert self.grid is not None
        return self.grid[0] - sum(self.reference_frames or ())

    @property
    def tokens(self) -> int | None:
        """Of the whole sequence; None when the grid is unknown."""
        return None if self.grid is None else math.prod(self.grid) + sink_tokens(self.sinks) + self.others
