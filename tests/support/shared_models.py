"""Tiny transformers that two processes share; as a program, this is the second of them.

Its arguments are a file that they meet by, a seed, and the names of models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map

from psa_core import Calibration, PSAConfig
from psa_core.hosts.diffusers import patch, share_heads
from psa_core.report.report import Report
from psa_core.settings.radial import RadialMask

from .diffusers_families import FAMILIES, FRAMES, VIDEO, ltx, skyreels_v2
from .diffusers_models import Model, wan

_PATIENCE = timedelta(minutes=5)
STEPS = 2
TOPK = PSAConfig(mask_mode="topk", block_m=64, block_n=32, min_tokens=0, map_steps=STEPS)
CALIBRATED = TOPK.replace(mask_mode="calibrated", target_density=0.4)
BY_POSITION = TOPK.replace(radial=RadialMask(mode="coarsen", decay_factor=0.2))
CONFIGS = {"calibrated": CALIBRATED, "kandinsky5": BY_POSITION}


class Made(NamedTuple):
    """What came of a model: its outputs, a step each, the report, and the recipes at the end, if heads had some."""

    outputs: list[torch.Tensor]
    report: Report
    calibration: Calibration | None


class _ByNoise:
    """A model that is given a noise level for every token, or every frame, the first of which are clean."""

    def __init__(self, model: Model, levels: int, **inputs: Any) -> None:
        self.transformer, self.inputs, self._levels = model.transformer, model.inputs | inputs, levels

    def __call__(self, timestep: float) -> torch.Tensor:
        timesteps = torch.full((2, self._levels), timestep, dtype=torch.float64)
        timesteps[:, : self._levels // 4] = 0
        return self.transformer(timestep=timesteps, return_dict=False, **self.inputs)[0]


# Gloo, unlike NCCL, puts only parts of the same size together.
_EVEN: dict[str, Callable[[], Any]] = {
    "wan": lambda: Model(wan(), (2, 4, 4, 18, 14)),
    "calibrated": lambda: Model(wan(), (2, 4, 4, 18, 14)),
    "ltx": lambda: ltx(guides=8),
    "ltx_by_token": lambda: _ByNoise(ltx(guides=8), VIDEO + 8),
    "skyreels_v2_by_frame": lambda: _ByNoise(skyreels_v2(), FRAMES, enable_diffusion_forcing=True),
}


@contextmanager
def joined(rank: int, meeting: Path) -> Iterator[None]:
    """Inside, this process is one of two, with no GPU."""
    dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=2, timeout=_PATIENCE)
    cpu = torch.device("cpu")
    try:
        # Diffusers counts GPUs, and there are none.
        with (
            mock.patch.object(torch.accelerator, "device_count", return_value=1),
            mock.patch.object(torch.accelerator, "current_accelerator", return_value=cpu),
            torch.no_grad(),
        ):
            yield
    finally:
        dist.destroy_process_group()


def share(name: str, seed: int) -> tuple[Made, Made, Made]:
    """What a model makes alone, what it makes as one of the two, and of calibrated attention with recipes made alone.

    These are given to the first, too: of a batch each video chooses for itself, and a head has one recipe for all.
    """
    torch.manual_seed(seed)
    model, timesteps = _model(name)
    config = CONFIGS.get(name, TOPK)
    given = make(model, timesteps, config).calibration
    alone = make(model, timesteps, config, given)
    share_heads(model.transformer, 2)
    return alone, make(model, timesteps, config, given), make(model, timesteps, config)


def make(
    model: Model,
    timesteps: list[float],
    config: PSAConfig,
    calibration: Calibration | None = None,
    backend: str = "torch",
) -> Made:
    """What a model makes in these steps."""
    with patch(model.transformer, config, backend=backend, steps=STEPS, calibration=calibration) as handle:
        outputs = [model(timestep) for timestep in timesteps]
    found = handle.calibration() if config is CALIBRATED else None
    return Made(outputs, handle.merged_report(), found)


def _model(name: str) -> tuple[Model, list[float]]:
    """A model and its timesteps.

    Where blocks are chosen by what is in them, it is in double precision, lest rounding decide between two.
    """
    family = FAMILIES.get(name)
    model = _EVEN[name]() if name in _EVEN else family.make()
    if CONFIGS.get(name) is not BY_POSITION:
        # Also what diffusers keeps in float32.
        torch.nn.Module.double(model.transformer)
        model.inputs = tree_map(_as_double, model.inputs)
    return model, [0.2, 0.4] if family is not None and family.rising else [900.0, 800.0]


def _as_double(x: Any) -> Any:
    return x.double() if torch.is_tensor(x) and x.is_floating_point() else x


if __name__ == "__main__":
    with joined(1, Path(sys.argv[1])):
        for name in sys.argv[3:]:
            share(name, int(sys.argv[2]))
