"""Density of a run that goes on, without ever waiting for the GPU."""

from __future__ import annotations

import torch

from .report import Report


class DensitySoFar:
    """Mean density of a report's sparse calls, as far as they are known.

    A GPU is asked for the sum of the calls since the last time, and tells it when it gets there; until it has, it is
    asked nothing else. A CPU's calls count at once, those of other devices never.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._asked = 0
        self._on_their_way: list[_Sum] = []
        self._sum = 0.0
        self._count = 0

    def ask(self) -> float | None:
        """What is known by now, None for nothing; and ask for the calls since."""
        self._take()
        if not self._on_their_way:
            shares = self._report.shares_since(self._asked)
            self._asked += len(shares)
            for device in {share.device for share in shares}:
                if device.type in ("cpu", "cuda"):
                    self._on_their_way.append(_Sum([share for share in shares if share.device == device]))
            self._take()
        return self._sum / self._count if self._count else None

    def _take(self) -> None:
        for each in [each for each in self._on_their_way if each.has_arrived()]:
            self._on_their_way.remove(each)
            self._sum += float(each.total)
            self._count += each.count


class _Sum:
    """The sum of the densities of some calls, on its way from their device to the host's memory.

    Args:
        shares: of levels 1, 2, 4 ..., of calls on one device.
    """

    def __init__(self, shares: list[torch.Tensor]) -> None:
        self.count = len(shares)
        self._arrived: torch.cuda.Event | None = None
        self.total = _sum(shares)
        if self.total.device.type == "cuda":
            with torch.cuda.device(self.total.device):
                there = torch.empty(self.total.shape, dtype=self.total.dtype, pin_memory=True)
                self.total = there.copy_(self.total, non_blocking=True)
                self._arrived = torch.cuda.Event()
                self._arrived.record()

    def has_arrived(self) -> bool:
        return self._arrived is None or self._arrived.query()


def _sum(shares: list[torch.Tensor]) -> torch.Tensor:
    by_size: dict[int, list[torch.Tensor]] = {}
    for share in shares:
        by_size.setdefault(len(share), []).append(share)
    by_level = [torch.stack(alike).sum(0) for alike in by_size.values()]
    return torch.stack([share / (1 << i) for of_size in by_level for i, share in enumerate(of_size)]).sum()
