"""A target, and whether a run met it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psa_core.apps.bench.results import PSA, Row


@dataclass(frozen=True)
class Target:
    """A figure that a run should reach.

    Attributes:
        name: the figure in words.
        part: of the benchmark that measures it.
        figure: takes the run's rows; None when they do not tell.
        bound: what to reach, in ``unit``.
        at_least: whether the bound is a lower one.
    """

    name: str
    part: str
    figure: Callable[[Sequence[Any]], float | None]
    bound: float
    unit: str = "x"
    at_least: bool = True

    def line(self, rows: Sequence[Any]) -> tuple[str, str, str, str]:
        """Name, target, measured, and met, missed or not measured."""
        value = self.figure(rows)
        target = f"{'>=' if self.at_least else '<='} {self.bound:.2f}{self.unit}"
        if value is None:
            return self.name, target, "", "not measured"
        met = value >= self.bound if self.at_least else value <= self.bound
        return self.name, target, f"{value:.2f}{self.unit}", "met" if met else "missed"


def find(rows: Iterable[Row], **fields: object) -> Row | None:
    """The first row of ours with these fields."""
    return next((row for row in rows if row.attention == PSA and fits(row, fields)), None)


def target_table(rows: Sequence[Any], targets: Sequence[Target]) -> str:
    """One line a target."""
    lines = [("target of", "target", "measured", ""), *(target.line(rows) for target in targets)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(x, widths, strict=True)).rstrip() for x in lines)


def fits(row: Row, fields: dict[str, object]) -> bool:
    """Whether a row has these fields."""
    return all(getattr(row, name) == value for name, value in fields.items())
