"""Our op as contenders: the settings that are measured."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...attention.call import pyramid_sparse_attention
from ...ops.precision import PRECISIONS
from ...ops.reorder import reorder_orders
from ...settings.config import PSAConfig
from .cases import BLOCK_M, DENSITY, Case, mask_ratios
from .checks import error_from_levels, poison_free_memory
from .inputs import Inputs
from .results import PSA, Row
from .timing import Contender

IMPORTANCE = ("mean", "sampled_max")
BLOCK_NS = (128, 32)
# The error from which a result in INT8 or FP8 is wrong: on random values, which do not even out, FP8 adds 0.03.
QUANTISED_BOUND = 0.05


@dataclass(frozen=True)
class Setting:
    """One setting of our op, with fixed quotas a level (``topk``).

    Attributes:
        importance: the estimator's name.
        block_n: keys a key block.
        density: share of dense attention's FLOPs, text and tail included.
        tail: pool all other blocks to one row each instead of skipping them.
        precision: of level 1; None for that of the tensors.
    """

    importance: str
    block_n: int = 128
    density: float = DENSITY
    tail: bool = False
    precision: str | None = None

    def config(self, case: Case) -> PSAConfig:
        """The setting as a user gives it, to reach the density in this case."""
        density = case.density_beside_text(self.density, self.block_n)
        ratios = mask_ratios(density, self.block_n if self.tail else 0)
        return PSAConfig(
            block_m=BLOCK_M,
            block_n=self.block_n,
            mask_ratios=ratios,
            mask_mode="topk",
            importance=self.importance,
            min_tokens=0,
            precision=self.precision or PRECISIONS[0],
        )

    def row(self, part: str, case: Case) -> Row:
        """The row of this setting, without numbers."""
        return Row.of(
            part,
            case,
            PSA,
            importance=self.importance,
            block_n=self.block_n,
            density=self.density,
            tail=self.tail,
            precision=self.precision,
        )


SETTINGS = tuple(Setting(name, n, tail=tail) for name in IMPORTANCE for n in BLOCK_NS for tail in (False, True))


def psa_contender(row: Row, case: Case, config: PSAConfig, inputs: Inputs) -> Contender:
    """The whole op: reorder, importance, levels, pyramid, kernel, restore."""
    call = functools.partial(
        pyramid_sparse_attention, *inputs, config, grid=case.grid, text_length=case.text_length, backend="triton"
    )
    # One call ahead of the checked one, for the density, which only the call itself knows.
    _, info = call(return_info=True)

    def error() -> float:
        poison_free_memory(inputs.q)
        out, info = call(return_info=True)
        orders = reorder_orders(config, case.grid, case.text_length, out.shape[0], 1, out.device)
        if orders is None:
            return error_from_levels(out, inputs, info.levels, config.block_n)
        ordered = Inputs(*(orders.take(x[:, -1:]) for x in inputs))
        return error_from_levels(orders.take(out[:, -1:]), ordered, info.levels[:, -1:], config.block_n)

    bound = Contender.bound if info.precision == PRECISIONS[0] else QUANTISED_BOUND
    return Contender(row.replace(reached_density=float(info.density)), call, error=error, bound=bound)


def topk_contenders(part: str, case: Case, inputs: Inputs, settings: Iterable[Setting]) -> Iterator[Contender]:
    """The whole op with each of the settings."""
    for setting in settings:
        yield psa_contender(setting.row(part, case), case, setting.config(case), inputs)
