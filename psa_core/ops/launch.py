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


# Timed on an H200 only; elsewhere chosen by arithmetic from what Triton 3.6 to 3.9 do not spill in the loop over tiles.
# - Three stages: with two, Triton copies a tile when the one before it is done, and nothing hides the wait.
# - Warps read a tile's rows through shared memory: four that hold 32 queries each read half of what eight read, and
#   two programs of four fit a multiprocessor. At head size 128 their registers spill.
# - 32 rows a tile: 64 spill with one Triton or another. The output is then rescaled twice as often, and consumer
#   cards (sm_86, sm_89, sm_120) have the time: for 64 rows a warp issues some 800 instructions (950 at head size 64)
#   while its 128 matrix instructions take 2,048 cycles, or 4,096 on a GeForce. Shared memory stays far below its 99 KB.
#   On sm_80 they take 1,024, which is still more.
_AMPERE_AND_CONSUMER = {64: Launch(128, 32, 4, 3), 128: Launch(128, 32, 8, 3)}
_HOPPER = {64: Launch(128, 128, 4, 2), 128: Launch(128, 64, 4, 2)}
_BLACKWELL = {64: Launch(128, 64, 8, 3), 128: Launch(128, 64, 8, 3)}
# 64 KB of shared memory; compiled for gfx942 and gfx1201 with hardly a spill (gfx1100 spills more), never run.
_AMD = {64: Launch(128, 64, 8, 2), 128: Launch(128, 32, 8, 2)}
# AMD's GPUs have capabilities that are NVIDIA's of other GPUs: (9, 0) is gfx90a too, (12, 0) gfx1200.
AMD = (0, 0)
_BY_ARCHITECTURE = {0: _AMD, 90: _HOPPER, 100: _BLACKWELL, 103: _BLACKWELL}


# Sampled-max importance. Elsewhere than here a matrix instruction takes the queries from registers: wider tiles than
# 32 spill, and set warps side by side that would have to exchange maxima.
_IMPORTANCE_LAUNCH = {90: Launch(128, 64, 4, 2), 100: Launch(128, 64, 4, 2), 103: Launch(128, 64, 4, 2)}


def attention_launch(capability: tuple[int, int], head_dim: int, block_m: int) -> Launch:
    """The configuration for a device capability such as ``(8, 9)``; one for an unknown GPU is a consumer card's."""
    table = _BY_ARCHITECTURE.get(capability[0] * 10 + capability[1], _AMPERE_AND_CONSUMER)
    launch = table[head_dim]
    # A warp takes 16 queries or more; with fewer to go round, warps would do the same ones twice.
    return launch._replace(tile_m=min(launch.tile_m, block_m), num_warps=min(launch.num_warps, block_m // 16))


def importance_launch(capability: tuple[int, int]) -> Launch:
    """The configuration of sampled-max importance for a device capability."""
    return _IMPORTANCE_LAUNCH.get(capability[0] * 10 + capability[1], Launch(128, 32, 4, 2))


def capability_of(device: torch.device) -> tuple[int, int]:
    """The capability of a GPU, or ``AMD``; for the interpreter, which has none, that of the oldest with bfloat16."""
    if device.type != "cuda":
        return 8, 0
    return AMD if torch.version.hip else torch.cuda.get_device_capability(device)


class QuantisedLaunch(NamedTuple):
    """Tiles, warps and stages of one program of attention over a packed pyramid.

    Attributes:
        tile_m, tile_n, num_stages: queries, packed tokens of a tile, and pipeline stages of the loop over them.
        num_warps: of a program.
        gathered_n, gathered_stages: rows of a tile of gathered rows, which are pooled or (no more than 64 of them)
            read by exact heads, and stages of the loops over those.
    """

    tile_m: int
    tile_n: int
    num_stages: int
    num_warps: int
    gathered_n: int
    gathered_stages: int


# Timed on an H200 only. There 64 queries a program, of which three or more find room on a multiprocessor, beat 128,
# whose registers spill; at head size 64 wide tiles rescale the output half as often. Gathered rows are waited for less
# in tiles of 128. Elsewhere as for 16-bit rows alone, by the same arithmetic; packed tokens take half the registers.
_QUANTISED = {90: {64: QuantisedLaunch(64, 128, 3, 4, 128, 3), 128: QuantisedLaunch(64, 64, 3, 4, 128, 2)}}
_QUANTISED_ELSEWHERE = {64: QuantisedLaunch(128, 64, 3, 8, 32, 3), 128: QuantisedLaunch(128, 64, 3, 8, 32, 3)}


def quantised_launch(capability: tuple[int, int], head_dim: int, block_m: int, block_n: int) -> QuantisedLaunch:
    """The configuration of attention over a packed pyramid, whose tiles are no wider than a key block."""
    launch = _QUANTISED.get(capability[0] * 10 + capability[1], _QUANTISED_ELSEWHERE)[head_dim]
    return launch._replace(
        tile_m=min(launch.tile_m, block_m),
        tile_n=min(launch.tile_n, block_n),
        num_warps=min(launch.num_warps, block_m // 16),
    )
