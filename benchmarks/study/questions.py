"""What the study compares, question by question, and the settings that reach a density."""

from __future__ import annotations

import math
from dataclasses import dataclass

from psa_core.apps.bench.cases import mask_ratios
from psa_core.settings.config import PSAConfig

from .estimators import TRUE_MASS

DENSITIES = (0.1, 0.2, 0.35)
# Of upstream's bounds for Wan 14B, by the last of them.
_BOUNDS = (0.5, 0.625, 0.75, 1.0)


@dataclass(frozen=True)
class Setting:
    """One column of a comparison.

    Attributes:
        importance: name of an estimator, as in :func:`~benchmarks.study.estimators.importance`.
        block_n: keys a key block.
        order: a reordering method; None for the order of the model.
        pooled: whether some blocks go to levels 2 and 8, or all that are kept are at level 1.
        tail: pool all other blocks to one row each instead of skipping them.
        bounds: ``thresholdbound`` in place of fixed quotas (``topk``).
        cap: the cosine cap.
    """

    importance: str = "sampled_max"
    block_n: int = 128
    order: str | None = "Gilbert"
    pooled: bool = True
    tail: bool = False
    bounds: bool = False
    cap: bool = False

    def config(self, amount: float, k_blocks: int) -> PSAConfig:
        """Settings whose density is about ``amount`` (quotas) or grows with it (bounds); both from 0 to 1."""
        if self.bounds:
            levels = (1, 2, 4, 8)
            edges = [0.0, *(amount * bound for bound in _BOUNDS)]
            ratios = {level: (edges[i], edges[i + 1]) for i, level in enumerate(levels)} | {0: (amount, 1.0)}
        else:
            ratios = self._quotas(amount, k_blocks)
        return PSAConfig(
            block_n=self.block_n,
            mask_ratios=ratios,
            mask_mode="thresholdbound" if self.bounds else "topk",
            use_sim_mask=self.cap,
            use_rearrange=self.order is not None,
            rearrange_method=self.order or "Gilbert",
        )

    def _quotas(self, density: float, k_blocks: int) -> dict[int, tuple[float, float]]:
        """Whole numbers of blocks; the coarsest level in use makes up for what rounding costs the others."""
        rest = self.block_n if self.tail else 0
        of_rest = 1 / rest if rest else 0.0
        if not self.pooled:
            return _level_1(density, k_blocks, rest, of_rest)
        shares = mask_ratios(max(density, of_rest * 1.01), rest)
        first, second = (math.floor(shares[level][1] * k_blocks + 1e-9) for level in (1, 2))
        left = density * k_blocks - first - (second - first) / 2 - (k_blocks - second) * of_rest
        third = second + min(max(round(left / (1 / 8 - of_rest)), 0), k_blocks - second)
        a, b, c = (count / k_blocks for count in (first, second, third))
        return {1: (0.0, a), 2: (a, b), 8: (b, c), rest: (c, 1.0)}


def _level_1(density: float, k_blocks: int, rest: int, of_rest: float) -> dict[int, tuple[float, float]]:
    """Quotas of level 1 and the rest; a block each of levels 2, 4 and 8, where needed, makes up for rounding."""
    eighths = max(0, round(8 * k_blocks * (density - of_rest) / (1 - of_rest)))
    counts = {1: eighths // 8, 2: eighths // 4 % 2, 4: eighths // 2 % 2, 8: eighths % 2}
    ratios, end = {}, 0.0
    for level, count in counts.items():
        start, end = end, min(end + count / k_blocks, 1.0)
        ratios[level] = (start, end)
    return ratios | {rest: (end, 1.0)}


# Question -> settings by the name of their column.
QUESTIONS: dict[str, dict[str, Setting]] = {
    "importance, block_n 128": {name: Setting(name) for name in ("sampled_max", "mean", "sampled_sum", TRUE_MASS)},
    "importance, block_n 32": {
        name: Setting(name, block_n=32) for name in ("sampled_max", "mean", "sampled_sum", TRUE_MASS)
    },
    "what is not kept, block_n 128": {
        "pyramid, rest skipped": Setting(),
        "pyramid, rest one row a block": Setting(tail=True),
        "level 1, rest skipped": Setting(pooled=False),
        "level 1, rest one row a block": Setting(pooled=False, tail=True),
    },
    "what is not kept, block_n 32": {
        "pyramid, rest skipped": Setting(block_n=32),
        "pyramid, rest one row a block": Setting(block_n=32, tail=True),
        "level 1, rest skipped": Setting(block_n=32, pooled=False),
        "level 1, rest one row a block": Setting(block_n=32, pooled=False, tail=True),
    },
    "block size": {f"block_n {n}": Setting(block_n=n) for n in (128, 64, 32)},
    "order of tokens": {
        "Gilbert": Setting(),
        "tiles of 2 x 8 x 8": Setting(order="Tile"),
        "none": Setting(order=None),
    },
    "cosine cap": {"off": Setting(), "on": Setting(cap=True)},
    "how levels are chosen": {"topk": Setting(), "thresholdbound": Setting(bounds=True)},
}
