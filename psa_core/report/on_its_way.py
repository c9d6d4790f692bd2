"""Numbers on their way from a device to the host's memory, which nothing waits for before somebody has to know."""

from __future__ import annotations

import torch


class OnItsWay:
    """A copy of a tensor to the host that is begun now.

    Args:
        x: any tensor; one of a CPU is there at once.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._there = x
        if x.device.type == "cuda":
            with torch.cuda.device(x.device):
                there = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
                self._there = there.copy_(x, non_blocking=True)
                self._arrived = torch.cuda.Event()
                self._arrived.record()

    def has_arrived(self) -> bool:
        """Whether it is there. Waits for nothing."""
        return self._arrived is None or self._arrived.query()

    def value(self) -> torch.Tensor:
        """It, on the CPU; waits until it is there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._there
