"""How the tokens of a video model's self-attention lie: the video's grid, and what stands before and behind it."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..settings.sinks import Sink, Sinks, sink_tokens
from ..settings.sizes import Grid

# Tokens behind a video that are as many as this share of its own are no sink but selected like others.
_MANY = 0.25


class Layout(NamedTuple):
    """Where the video lies among the tokens of its self-attention.

    Attributes:
        grid: (frames, height, width) in tokens; None when unknown.
        sinks: tokens beside the video that every query sees at full resolution.
        others: tokens behind the video that are neither its own nor a sink's.
        trailing: frames at the end of the grid that are pictures beside the clip.
        leading: the same at its start; None where the call has those of the run.
        parts: in how many calls of a layer the video's queries come.
    """

    grid: Grid | None
    sinks: Sinks = ()
    others: int = 0
    trailing: int = 0
    leading: int | None = None
    parts: int = 1

    @property
    def in_parts(self) -> bool:
        """Whether the queries are a part of the video's, and the layer's next calls have the others."""
        return self.parts > 1

    def has_part_of(self, q_tokens: int, k_tokens: int) -> bool:
        """Whether queries are too few for the video, and keys are not."""
        return self.grid is not None and q_tokens < math.prod(self.grid) <= k_tokens


def video_last(grid: Grid | None, tokens: int) -> Layout:
    """A video behind its text and whatever else it looks at, all of which is a sink with dense rows."""
    front = 0 if grid is None else tokens - math.prod(grid)
    return Layout(grid, (Sink(0, front),) if front > 0 else ())


def video_first(grid: Grid | None, tokens: int, front: Sinks = (), text_behind: bool = False) -> Layout:
    """A video, after the sinks in front of it, with others behind it: a sink too if they are few or text."""
    if grid is None:
        return Layout(None)
    video = math.prod(grid)
    stop = sink_tokens(front) + video
    behind = tokens - stop
    if behind <= 0:
        return Layout(grid, front)
    if behind >= _MANY * video and not text_behind:
        return Layout(grid, front, others=behind)
    return Layout(grid, (*front, Sink(stop, tokens)))
