"""Launch configurations of the kernels: one table by GPU architecture."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Launch(NamedTuple):
    """Tile of queries, tile of rows, warps and pipeline stages of one program."""

    tile_m: int
    tile_n: int
    num_warps: int
    num_stages: int


# Shared memory a block may use decides the stages: 227 KB on sm_90 and sm_100, 163 KB on sm_80, 99 KB on the
# consumer cards (sm_86, sm_89, sm_120). Registers decide warps and rows on sm_100 and sm_103: one step more spills.
# Timed on an H200 only; elsewhere chosen by what compiles without spills.
_AMPERE = {64: Launch(128, 64, 8, 3), 128: Launch(128, 64, 8, 3)}
_HOPPER = {64: Launch(128, 128, 4, 2), 128: Launch(128, 64, 4, 2)}
_BLACKWELL = {64: Launch(128, 64, 8, 3), 128: Launch(128, 32, 8, 3)}
_CONSUMER = {64: Launch(128, 64, 8, 2), 128: Launch(128, 32, 8, 2)}
_BY_ARCHITECTURE = {80: _AMPERE, 90: _HOPPER, 100: _BLACKWELL, 103: _BLACKWELL}


# Sampled-max importance: small enough for every architecture.
IMPORTANCE_LAUNCH = Launch(128, 64, 4, 2)


def attention_launch(capability: tuple[int, int], head_dim: int, block_m: int) -> Launch:
    """The configuration for a device capability such as ``(8, 9)``; one for an unknown GPU is a consumer card's."""
    table = _BY_ARCHITECTURE.get(capability[0] * 10 + capability[1], _CONSUMER)
    launch = table[head_dim]
    return launch._replace(tile_m=min(launch.tile_m, block_m))


def capability_of(device: torch.device) -> tuple[int, int]:
    """The capability of a GPU; for the interpreter, which has none, that of the oldest one with bfloat16."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)
