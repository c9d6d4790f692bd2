"""Sinks: tokens beside a video's, such as text and reference pictures, that every query sees at full resolution."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import ConfigError
from .sizes import Grid


class Sink(NamedTuple):
    """A range of tokens.

    Attributes:
        start, stop: the tokens, without ``stop``.
        dense_rows: whether they see all of the sequence at full resolution themselves.
    """

    start: int
    stop: int
    dense_rows: bool = True

    def blocks(self, size: int) -> range:
        """The blocks of ``size`` tokens that hold any of it."""
        return range(self.start // size, math.ceil(self.stop / size))


Sinks = tuple[Sink, ...]
"""Ranges that follow one another and have no token in common."""


def text_in_front(text_length: int) -> Sinks:
    """The short form: so many tokens in front of the video, whose own rows are dense."""
    # Of a bare number's truth torch 2.5 makes a graph for each.
    return (Sink(0, text_length),) if text_length > 0 else ()


def read_sinks(sinks: Any, text_length: int = 0) -> Sinks:
    """Sinks as callers give them, one behind the other.

    Args:
        sinks: ``(start, stop, dense_rows)`` for each.
        text_length: of one more, in front of them.

    Raises:
        ConfigError: one is no such range, or begins before the one before it ends.
    """
    found = [*text_in_front(text_length)]
    for sink in sinks if isinstance(sinks, Iterable) else (sinks,):
        if not isinstance(sink, Sequence) or len(sink) != 3 or not _is_range(sink[0], sink[1]):
            raise ConfigError("sinks", sink, "must be (start, stop, dense_rows): tokens from start up to stop")
        # Not by pairs of all: torch 2.5 does not compile itertools.
        if found and sink[0] < found[-1].stop:
            raise ConfigError("sinks", [tuple(found[-1]), tuple(sink)], "must follow one another, behind the text")
        found.append(Sink(sink[0], sink[1], bool(sink[2])))
    return tuple(found)


def _is_range(start: Any, stop: Any) -> bool:
    return isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop


def sink_tokens(sinks: Sinks) -> int:
    """How many tokens sinks have."""
    return sum(sink.stop - sink.start for sink in sinks)


def video_start(sinks: Sinks) -> int:
    """The video's first token: the first that no sink has."""
    start = 0
    for sink in sinks:
        if sink.start == start:
            start = sink.stop
    return start


def video_range(sinks: Sinks, tokens: int) -> tuple[int, int]:
    """Where the video of a sequence begins and ends: at the first token that no sink has, and at the next sink."""
    start = video_start(sinks)
    return start, min((sink.start for sink in sinks if sink.start >= start), default=tokens)


def around(grid: Grid, sinks: Sinks, tokens: int) -> tuple[int, int]:
    """How many tokens of a sequence lie in front of its video and behind it."""
    before = video_start(sinks)
    return before, tokens - before - math.prod(grid)


def behind(sinks: Sinks, tokens: int) -> Sinks:
    """What is left of sinks behind so many tokens, counted from there."""
    if not tokens:
        return sinks
    return tuple(Sink(max(start - tokens, 0), stop - tokens, dense) for start, stop, dense in sinks if stop > tokens)


# Asked on every attention call.
@lru_cache(maxsize=64)
def sink_rows(sinks: Sinks, block_m: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Which of some query blocks have rows that are dense: 1 for those."""
    dense = {block for sink in sinks if sink.dense_rows for block in sink.blocks(block_m)}
    return tuple(int(block in dense) for block in blocks)


@lru_cache(maxsize=64)
def sink_columns(sinks: Sinks, block_n: int, k_blocks: int) -> tuple[int, ...]:
    """Which key blocks every query sees at full resolution: 1 for those."""
    held = {block for sink in sinks for block in sink.blocks(block_n)}
    return tuple(int(block in held) for block in range(k_blocks))
