"""Density of a run that goes on, without ever waiting for the GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .on_its_way import OnItsWay
from .report import Report


class DensitySoFar:
    """Mean density of a report's sparse calls, as far as they are known.

    A GPU is asked for the sum of the calls since the last time, and tells it when it gets there; until it has, it is
    asked nothing else. A CPU's calls count at once, those of other devices never.

    Attributes:
        report: the report.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._asked = 0
        self._on_their_way: list[_Sum] = []
        self._sum = 0.0
        self._count = 0

    def ask(self) -> float | None:
        """What is known by now, None for nothing; and ask for the calls since."""
        self._take()
        if not self._on_their_way:
            shares = self.report.shares_since(self._asked)
            self._asked += len(shares)
            for device in {share.device for share in shares}:
                if device.type in ("cpu", "cuda"):
                    here = [share for share in shares if share.device == device]
                    self._on_their_way.append(_Sum(OnItsWay(_sum(here)), len(here)))
            self._take()
        return self._sum / self._count if self._count else None

    def _take(self) -> None:
        for each in [each for each in self._on_their_way if each.total.has_arrived()]:
            self._on_their_way.remove(each)
            self._sum += float(each.total.value())
            self._count += each.calls


class _Sum(NamedTuple):
    """The sum of the densities of so many calls on one device."""

    total: OnItsWay
    calls: int


def _sum(shares: list[torch.Tensor]) -> torch.Tensor:
    by_size: dict[int, list[torch.Tensor]] = {}
    for share in shares:
        by_size.setdefault(len(share), []).append(share)
    by_level = [torch.stack(alike).sum(0) for alike in by_size.values()]
    return torch.stack([share / (1 << i) for of_size in by_level for i, share in enumerate(of_size)]).sum()
