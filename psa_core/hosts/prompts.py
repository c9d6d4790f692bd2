"""Which prompts of a run are two sides of one guidance, and which stand for themselves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Prompts(NamedTuple):
    """The prompts of one forward's batch, one after another.

    Attributes:
        condition, conditions: as in :class:`~psa_core.hosts.place.Place`.
    """

    condition: Hashable = None
    conditions: int = 1


class PromptsOfRun:
    """Tells them apart, from forward to forward.

    Of positive prompts, and of negative ones, the first that a run meets are what guidance compares. Others of the same
    kind may be about another part of the picture, and latents of the same shape need not be the same. Where one takes
    the place of another in the course of a denoising, it does so here from its second step on.
    """

    def __init__(self) -> None:
        self._first: dict[int, Hashable] = {}
        self._step: int | None = None
        self._seen: set[Hashable] = set()

    def of(self, step: int, kinds: Sequence[int], names: Sequence[Hashable]) -> Prompts:
        """Of a forward, whose step's prompts may come together or in turn.

        Args:
            step: of the denoising.
            kinds: of each prompt, what guidance takes it for.
            names: what tells each from others of its kind; empty where there is nothing.
        """
        names = tuple(names or kinds)
        if step != self._step:
            # Of those that the step before was without nobody knows whether they will be back.
            self._first = {kind: name for kind, name in self._first.items() if name in self._seen}
            self._step, self._seen = step, set()
        self._seen.update(names)
        for kind, name in zip(kinds, names, strict=False):
            # Who asks for a single prompt calls it positive, be it the other one or not.
            if name not in self._first.values():
                self._first.setdefault(kind, name)
        if len(names) == len(kinds) == len(set(names)) and set(names) <= set(self._first.values()):
            return Prompts(conditions=max(len(names), 1))
        return Prompts(names)
