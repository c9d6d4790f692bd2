"""Any other model with diffusers' attention processors: its tokens are taken as they lie."""

from __future__ import annotations

from typing import Any

import torch

from .family import Family, Inputs, Tokens

_TIMESTEPS = ("timestep", "timesteps", "t")


class AnyFamily(Family):
    """Its attention modules are those that have a processor."""

    def modules(self, transformer: torch.nn.Module) -> list[Any]:
        return [module for module in transformer.modules() if hasattr(module, "processor")]


def _inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    tensors = [x for x in call.values() if isinstance(x, torch.Tensor)]
    given = [call[name] for name in _TIMESTEPS if call.get(name) is not None]
    # Without a timestep, the scheduler alone tells steps apart.
    timestep = torch.as_tensor(given[0] if given else 0.0)
    return Inputs(timestep, max(tensors, key=torch.Tensor.numel), Tokens(grid_optional=True))


ANY = AnyFamily((), _inputs)
