"""Scene boundaries and adjacency: reading, and whether they fit a clip."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ConfigError
from .validation import check_choice, check_whole, whole_of
from .words import shown

ADJACENCIES = ("neighbours", "all", "own")
FRAMES_PER_TOKEN = (1, 4, 8)

Adjacency = str | Sequence[Sequence[bool]]

# Of any clip, with room to spare. A matrix of as many scenes as text has up to seven letters an entry.
_MOST_FRAMES, _MOST_SCENES = 65_536, 256
_LONGEST_MATRIX = 7 * _MOST_SCENES**2

_ENTRIES = {"0": False, "1": True, "false": False, "true": True}


def read_boundaries(value: str | Sequence[int]) -> tuple[int, ...]:
    """Scene boundaries as whole numbers, from text (``"0, 15, 30, 45"``) or a sequence; empty for no scenes.

    Raises:
        ConfigError: not whole numbers that go up from 0, or only one; the message names the word or number.
    """
    if isinstance(value, str):
        words: list[Any] = [word for word in re.split(r"[,;\s]+", value.strip(" \t\n[]()")) if word]
        numbers = [word if (number := whole_of(word)) is None else number for word in words]
    elif isinstance(value, Sequence):
        numbers = list(value)
    else:
        raise ConfigError("scene_boundaries", value, "must be text or a sequence of whole numbers")
    for number in numbers:
        if type(number) is not int:
            raise _boundary_error(value, f"{shown(number)} is not a whole number")
        if abs(number) > _MOST_FRAMES:
            raise _boundary_error(value, f"{shown(number)} lies beyond the end of any clip ({_MOST_FRAMES:,} frames)")
    if len(numbers) > _MOST_SCENES + 1:
        raise _boundary_error(value, f"has {len(numbers) - 1:,} scenes; {_MOST_SCENES} are allowed")
    if numbers and numbers[0] != 0:
        raise _boundary_error(value, f"must begin with 0, the first frame, not with {numbers[0]}")
    if len(numbers) == 1:
        raise _boundary_error(value, "must be 2 numbers or more, the end of the last scene among them, not only 0")
    for before, number in itertools.pairwise(numbers):
        if number <= before:
            raise _boundary_error(value, f"must go up, but {number} follows {before}")
    return tuple(numbers)


def read_adjacency(value: Adjacency) -> str | tuple[tuple[bool, ...], ...]:
    """An adjacency as one of ``ADJACENCIES``, or as a square matrix in which every scene sees itself.

    ``"neighbours"`` lets a scene see itself, the one before and the one after; ``"own"`` itself alone. A matrix is a
    sequence of rows, JSON, or text with rows on lines or separated by ``;`` or ``/``. Entries are 0, 1, true or false.

    Raises:
        ConfigError: neither; the message names row and column, counted from 0.
    """
    if isinstance(value, str) and value.strip() in ADJACENCIES:
        return value.strip()
    rows = _rows(value)
    matrix = []
    for i, row in enumerate(rows):
        if len(row) != len(rows):
            size = f"{len(rows)} by {len(rows)}"
            raise _adjacency_error(value, f"must be square, {size}, but row {i} is {len(row)} long")
        for j, entry in enumerate(row):
            if _sees(entry) is None:
                raise _adjacency_error(value, f"row {i}, column {j} is {shown(entry)}, not 0, 1, true or false")
        matrix.append(tuple(bool(_sees(entry)) for entry in row))
        if not matrix[i][i]:
            raise _adjacency_error(value, f"row {i}, column {i} is {shown(row[i])}, but a scene must see itself")
    return tuple(matrix)


def _sees(entry: Any) -> bool | None:
    """What an entry of an adjacency says; None for what is none."""
    if isinstance(entry, str):
        return _ENTRIES.get(entry.lower())
    number = isinstance(entry, bool | int | np.bool_ | np.integer) and entry in (0, 1)
    return bool(entry) if number else None


def adjacency_matrix(adjacency: Adjacency, scenes: int) -> np.ndarray:
    """The matrix of an adjacency for this many scenes; bool ``[scenes, scenes]``, row i says what scene i sees.

    Raises:
        ConfigError: the adjacency is not allowed, or is a matrix of another size.
    """
    matrix = read_adjacency(adjacency)
    apart = np.abs(np.subtract.outer(np.arange(scenes), np.arange(scenes)))
    if isinstance(matrix, str):
        return apart <= {"own": 0, "neighbours": 1, "all": scenes}[matrix]
    if len(matrix) != scenes:
        raise _adjacency_error(adjacency, f"must have a row for each of {scenes} scenes, not {len(matrix)} rows")
    return np.array(matrix, bool)


def check_scenes(boundaries: str | Sequence[int], adjacency: Adjacency, frames: int, frames_per_token: int = 1) -> None:
    """Scenes fit a clip of this many frames of tokens; arguments as in :func:`scene_levels`.

    Raises:
        ConfigError: a boundary lies beyond the end, the last is not the end, a scene is too short for a frame of
            tokens of its own, or the adjacency has another size; the message names the numbers.
    """
    check_choice("frames_per_token", frames_per_token, FRAMES_PER_TOKEN)
    check_whole("frames", frames, 1)
    numbers = read_boundaries(boundaries)
    if not numbers:
        raise _boundary_error(boundaries, "must be 2 numbers or more")
    ends = _last_video_frame(np.arange(-1, frames), frames_per_token) + 1
    least, most = max(int(ends[-2]) + 1, 1), int(ends[-1])
    right = f"the last must be {_range(least, most)}, the end of a clip of {_clip(frames, frames_per_token)}"
    for number in numbers:
        if number > most:
            raise _boundary_error(boundaries, f"{number} lies beyond the end; {right}")
    if numbers[-1] < least:
        raise _boundary_error(boundaries, f"{numbers[-1]} is not the end; {right}")
    held = np.bincount(scene_of_frame(numbers, frames, frames_per_token), minlength=len(numbers) - 1)
    for i in np.flatnonzero(held == 0):
        what = "latent frame" if frames_per_token == 4 else "frame of tokens"
        scene = f"the scene from {numbers[i]} to {numbers[i + 1]}"
        raise _boundary_error(boundaries, f"no {what} has its middle in {scene}, which must be longer")
    adjacency_matrix(adjacency, len(numbers) - 1)


def scene_of_frame(boundaries: tuple[int, ...], frames: int, frames_per_token: int) -> np.ndarray:
    """The scene of every frame of tokens; ``[frames]``."""
    last = _last_video_frame(np.arange(-1, frames), frames_per_token)
    first, last = np.maximum(last[:-1] + 1, 0), last[1:]
    # A clip may end inside its last frame of tokens.
    middle = (first + np.minimum(last, boundaries[-1] - 1)) // 2
    return np.searchsorted(boundaries, middle, side="right") - 1


def _last_video_frame(frame: np.ndarray, frames_per_token: int) -> np.ndarray:
    """The last video frame that a frame of tokens holds. The first of all is alone in its latent frame."""
    return frames_per_token * frame + max(frames_per_token - 4, 0)


def _rows(value: Any) -> list[list[Any]]:
    """The entries of a matrix, row by row, not checked yet."""
    if isinstance(value, str):
        if len(value) > _LONGEST_MATRIX:
            raise _adjacency_error(value, f"has {len(value):,} letters; {_MOST_SCENES} scenes are allowed")
        text = value.strip().lower()
        if text.startswith("["):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise _adjacency_error(value, f"is not JSON: {error}") from None
        else:
            rows = [re.split(r"[,\s]+", row.strip(" \t\r,")) for row in re.split(r"[;/\n]", text) if row.strip()]
            if not rows or (len(rows) == 1 and rows[0][0] not in _ENTRIES):
                raise _adjacency_error(value, "must be one of " + ", ".join(ADJACENCIES) + ", or a matrix")
            return rows
    if not isinstance(value, list | tuple | np.ndarray) or len(value) == 0:
        raise _adjacency_error(value, "must be one of " + ", ".join(ADJACENCIES) + ", or a matrix")
    for i, row in enumerate(value):
        if not isinstance(row, list | tuple | np.ndarray):
            raise _adjacency_error(value, f"row {i} is {shown(row)}, not a row of entries")
    return [list(row) for row in value]


def _range(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def _clip(frames: int, frames_per_token: int) -> str:
    kind = {1: "frame{s} of tokens", 4: "latent frame{s}", 8: "frame{s} of tokens, two latent frames each"}
    return f"{frames} " + kind[frames_per_token].format(s="" if frames == 1 else "s")


def _boundary_error(value: Any, allowed: str) -> ConfigError:
    return ConfigError("scene_boundaries", value, allowed)


def _adjacency_error(value: Any, allowed: str) -> ConfigError:
    return ConfigError("scene_adjacency", value, allowed)
