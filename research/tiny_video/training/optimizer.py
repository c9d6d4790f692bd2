"""How both networks are optimized: Muon for the matrices inside, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable

import torch

from . import gpus
from .muon import Muon

_WARMUP = 100
_LONGEST_GRADIENT = 1.0


class Optimizer:
    """Learning rates rise over the first 100 steps, and fall to zero over the last part.

    Args:
        network: whose parameters are trained.
        inner: whether a parameter, by its name, is a matrix inside the network.
        rates: learning rates of Muon and of AdamW.
        steps: of the whole training.
        falling: the share of the steps over which learning rates fall.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        inner: Callable[[str, torch.nn.Parameter], bool],
        *,
        rates: tuple[float, float],
        steps: int,
        falling: float,
    ) -> None:
        self._parameters = list(network.parameters())
        parts: tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]] = ([], [])
        for name, parameter in network.named_parameters():
            parts[0 if inner(name, parameter) else 1].append(parameter)
        self._optimizers = (
            Muon(parts[0], rates[0]),
            torch.optim.AdamW(parts[1], rates[1], betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        )
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                x, lambda step: min(1.0, (step + 1) / _WARMUP, (steps - step) / (steps * falling))
            )
            for x in self._optimizers
        ]

    def step(self, loss: torch.Tensor) -> None:
        """One step down the gradient of this loss."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        gpus.average_gradients(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, _LONGEST_GRADIENT)
        for optimizer in self._optimizers:
            optimizer.step()
        for schedule in self._schedules:
            schedule.step()
