"""The closed language of the tiny video model: a prompt is eight words, one a slot, and each word is a number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import torch

from ...settings.errors import ConfigError

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "star")
MOTIONS = ("still", "left", "right", "up", "down", "turning")
PATTERNS = ("plain", "stripes", "checks", "dots")
GROUNDS = ("gray", "brown", "olive", "navy")

# What a prompt does not say.
NONE = "-"
# Words by slot: the first object, the second, the background.
SLOTS = (COLOURS, SHAPES, MOTIONS, COLOURS, SHAPES, MOTIONS, PATTERNS, GROUNDS)
# Number of each slot's NONE.
STARTS = tuple(sum(1 + len(slot) for slot in SLOTS[:i]) for i in range(len(SLOTS)))
TEXT_DIM = 64
# An embedding's one number that is not zero: its length is then that of a vector of normal numbers.
SIZE = TEXT_DIM**0.5
_FILLERS = frozenset(["a", "an", "the", "moving", "and", "over", "on", "in", "with", "of", "background"])
_OBJECT = 3


class Words(NamedTuple):
    """A prompt, slot by slot; ``NONE`` where it says nothing."""

    colour: str = NONE
    shape: str = NONE
    motion: str = NONE
    colour_2: str = NONE
    shape_2: str = NONE
    motion_2: str = NONE
    pattern: str = NONE
    ground: str = NONE


def read_prompt(prompt: str) -> Words:
    """The words of a prompt such as ``"a red circle moving left and a blue star turning over navy stripes"``.

    What comes after ``and`` is the second object. An empty prompt says nothing, which is what the model is guided
    away from.

    Raises:
        ConfigError: a word is unknown, or one too many.
    """
    words = list(Words())
    first = 0
    for word in re.findall(r"[^\s,.;]+", prompt.lower()):
        if word == "and":
            first = _OBJECT
        if word in _FILLERS:
            continue
        slot = _slot_of(word, first)
        if slot is None:
            raise ConfigError("word", word, f"the tiny model knows the words {', '.join(_known())}")
        if words[slot] != NONE:
            raise ConfigError("word", word, f'is one too many beside "{words[slot]}"; "and" begins a second object')
        words[slot] = word
    return Words(*words)


def embed(words: Words) -> torch.Tensor:
    """Embeddings ``[8, 64]`` of a prompt: in each row one number that is not zero, at the place of a word."""
    rows = torch.zeros(len(SLOTS), TEXT_DIM)
    for row, index in zip(rows, indices(words), strict=True):
        row[index] = SIZE
    return rows


def indices(words: Words) -> list[int]:
    """The number of each word: words of all slots counted through, and in each slot ``NONE`` first."""
    choices = zip(words, SLOTS, STARTS, strict=True)
    return [start + (0 if word == NONE else 1 + slot.index(word)) for word, slot, start in choices]


def words_of(numbers: Iterable[int]) -> Words:
    """The words of these numbers; the reverse of :func:`indices`."""
    return Words(*((NONE, *slot)[i - start] for i, slot, start in zip(numbers, SLOTS, STARTS, strict=True)))


def _slot_of(word: str, first: int) -> int | None:
    for slot in (*range(first, first + _OBJECT), 6, 7):
        if word in SLOTS[slot]:
            return slot
    return None


def _known() -> list[str]:
    return sorted({*COLOURS, *SHAPES, *MOTIONS, *PATTERNS, *GROUNDS} | _FILLERS)
