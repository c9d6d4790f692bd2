"""What is measured: models at sizes, densities, and level maps of a given density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ...settings.errors import ConfigError
from ...settings.sizes import Grid

BLOCK_M = 128

# The parts of the benchmark.
CASES_PART, DENSITY_PART = "cases", "density"


@dataclass(frozen=True)
class Case:
    """One model's self-attention at one size.

    Attributes:
        name: model, resolution, frames.
        heads: attention heads.
        head_dim: numbers a head, D.
        grid: (frames, height, width) of the video in tokens.
        text_length: text tokens in front of the video tokens.
    """

    name: str
    heads: int
    head_dim: int
    grid: Grid
    text_length: int = 0

    def density_beside_text(self, density: float, block_n: int) -> float:
        """What is left for the video of a density, as text keeps full resolution."""
        q_blocks, k_blocks = math.ceil(self.tokens / BLOCK_M), math.ceil(self.tokens / block_n)
        q_text, k_text = math.ceil(self.text_length / BLOCK_M), math.ceil(self.text_length / block_n)
        video = (1 - q_text / q_blocks) * (1 - k_text / k_blocks)
        return max(0.01, 1 - (1 - density) / video)

    @property
    def tokens(self) -> int:
        """Length of the sequence, text included."""
        return self.text_length + math.prod(self.grid)


WAN_720P = Case("Wan 1.3B 720p 69f", 12, 128, (18, 45, 80))
WAN_480P = Case("Wan 1.3B 480p 81f", 12, 128, (21, 30, 52))
WAN_14B = Case("Wan 14B 480p 81f", 40, 128, (21, 30, 52))
COGVIDEOX = Case("CogVideoX-5B", 48, 64, (13, 30, 45), 226)
COGVIDEOX_1_5 = Case("CogVideoX1.5-5B", 48, 64, (11, 48, 85), 226)
CASES = (WAN_720P, WAN_14B, WAN_480P, COGVIDEOX, COGVIDEOX_1_5)

DENSITY = 0.15
DENSITIES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
QUICK_DENSITIES = (0.15, 0.4)
DENSITY_CASES = (WAN_720P, COGVIDEOX_1_5)


def mask_ratios(density: float, rest: int = 0) -> dict[int, tuple[float, float]]:
    """``mask_ratios`` (``topk``) of a density, mixed as 10 % level 1, 5 % level 2 and 20 % level 8 make 0.15.

    Above 3/7, where that mix would keep more blocks than there are, all are kept and level 1 grows.

    Args:
        density: share of dense attention's FLOPs, above 0 and up to 1.
        rest: the level of all other blocks, by default skipped; what they cost is part of the density. The density
            must be above 1 / rest.
    """
    if density <= 3 / 7:
        of_rest = 1 / rest if rest else 0.0
        mixed = max(0.0, density - of_rest) / (1 - of_rest * 7 / 3)
        shares = (mixed * 2 / 3, mixed / 3, mixed * 4 / 3)
    else:
        pooled = (1 - density) / 4
        shares = (1 - 5 * pooled, pooled, 4 * pooled)
    first, second, third = (min(1.0, sum(shares[: i + 1])) for i in range(3))
    return {1: (0.0, first), 2: (first, second), 8: (second, third), rest: (third, 1.0)}


class Named(Protocol):
    """What is chosen by its name."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def chosen_cases(names: Sequence[str] | None, cases: Sequence[N], known: Sequence[Named] = CASES) -> list[N]:
    """The cases whose name contains one of ``names``, upper and lower case alike; all of them for None.

    Raises:
        ConfigError: a name fits no case that is known.
    """
    if names is None:
        return list(cases)
    for name in names:
        if not any(name.lower() in case.name.lower() for case in known):
            allowed = "must be (part of) one of " + ", ".join(case.name for case in known)
            raise ConfigError("--cases", name, allowed)
    return [case for case in cases if any(name.lower() in case.name.lower() for name in names)]
