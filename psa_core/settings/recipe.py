"""A recipe: how one head's key blocks are ordered, ranked and spent on levels."""

from __future__ import annotations

from dataclasses import dataclass

from .config import IMPORTANCE_ESTIMATORS, PSAConfig
from .mixes import MIX_RATIOS, Ratios
from .orders import ORDERS, RASTER
from .validation import above_zero, check_choice

MIXES = tuple(MIX_RATIOS)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one head computes, validated on construction.

    Attributes:
        order: of tokens before blocks are cut: ``"Raster"`` (as they come), or a ``rearrange_method`` of PSAConfig.
        estimator: of block importance, as ``PSAConfig.importance``.
        mix: how the density is spent: ``"level 1"`` alone; ``"pyramid"``, levels 1, 2 and 8 as 10 : 5 : 20;
            ``"tail"``, level 1, and one pooled row for every other block.
        density: share of dense attention's work, above 0 and at most 1. A tail has ``1 / block_n`` at least.

    Raises:
        ConfigError: a part is not allowed; the message names the key, the value and what is allowed.
    """

    order: str
    estimator: str
    mix: str
    density: float

    def __post_init__(self) -> None:
        check_choice("order", self.order, ORDERS)
        check_choice("estimator", self.estimator, IMPORTANCE_ESTIMATORS)
        check_choice("mix", self.mix, MIXES)
        object.__setattr__(self, "density", above_zero("density", self.density))

    @property
    def name(self) -> str:
        """A few words for people."""
        return f"{self.order}, {self.estimator}, {self.mix}, density {self.density:g}"

    def mask_ratios(self, block_n: int) -> Ratios:
        """The mix at this density as ``mask_ratios`` of mode ``topk``.

        Args:
            block_n: keys a key block.
        """
        return MIX_RATIOS[self.mix](self.density, block_n)

    def config(self, base: PSAConfig) -> PSAConfig:
        """Settings that run this recipe on every head.

        Args:
            base: what a recipe does not say.
        """
        return base.replace(
            mask_mode="topk",
            mask_ratios=self.mask_ratios(base.block_n),
            importance=self.estimator,
            use_rearrange=self.order != RASTER,
            rearrange_method=base.rearrange_method if self.order == RASTER else self.order,
        )
