"""Muon, an optimizer that makes the updates of a matrix orthogonal: far fewer steps than AdamW for the same loss.

From Keller Jordan's description (https://kellerjordan.github.io/posts/muon). torch has it for matrices since 2.9; here
convolutions count as matrices too, and all of the same shape are done at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch

# Coefficients of an odd polynomial that, applied again and again, takes every singular value to about one.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
# The size that AdamW's updates have, so that the same learning rates fit.
_UPDATE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions.

    Args:
        parameters: all but the first dimension of each is flattened.
        learning_rate: as for AdamW.
        momentum: how much of the past steps stays, with Nesterov's look ahead.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], learning_rate: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters from their gradients."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._step(parameters, group["lr"], group["momentum"])

    def _step(self, parameters: list[torch.nn.Parameter], learning_rate: float, momentum: float) -> None:
        gradients = torch.stack([x.grad for x in parameters if x.grad is not None]).flatten(2)
        past = self.state[parameters[0]].setdefault("past", torch.zeros_like(gradients))
        past.lerp_(gradients, 1 - momentum)
        updates = orthogonal(gradients.lerp(past, momentum))
        size = _UPDATE * max(updates.shape[1:]) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.add_(update.view_as(parameter).to(parameter.dtype), alpha=-learning_rate * size)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """About the nearest matrices ``[n, rows, columns]`` whose singular values are all one."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x.bfloat16() if x.is_cuda else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        product = x @ x.mT
        x = _A * x + (_B * product + _C * product @ product) @ x
    return x.mT if tall else x
