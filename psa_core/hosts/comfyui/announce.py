"""What a patch says on its node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Announce(Protocol):
    """Shows lines in place of those before, and the density that a run came to with the numbers of its preset."""

    def __call__(self, line: str, density: float | None = None) -> None: ...


def with_remarks(announce: Announce, remarks: Sequence[str]) -> Announce:
    """The same with remarks below each line, for as long as a sampler call and its result are shown."""

    def say(line: str, density: float | None = None) -> None:
        announce("\n".join(filter(None, [line, *remarks])), density)

    return say
