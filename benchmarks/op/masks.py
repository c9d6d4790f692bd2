"""Radial masks as contenders: alone, against FlexAttention with the same blocks, and together with selection."""

from __future__ import annotations

from collections.abc import Iterator

from psa_core.apps.bench.cases import BLOCK_M, Case
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.ours import Setting, psa_contender
from psa_core.apps.bench.results import PSA, Row
from psa_core.apps.bench.rivals import sdpa_contender
from psa_core.apps.bench.timing import Contender
from psa_core.masks.static import static_levels
from psa_core.settings.config import PSAConfig
from psa_core.settings.radial import RadialMask

from .flex import BLOCK_N, FLEX, flex_contender_of, forget_compiled

DECAYS = (0.2, 1.0)


def mask_contenders(part: str, case: Case, inputs: Inputs) -> Iterator[Contender]:
    """The dense backend; for each decay the mask alone, FlexAttention with its blocks, what it cuts pooled instead;
    and selection by content without a mask and combined with one."""
    forget_compiled()
    yield sdpa_contender(part, case, inputs)
    for decay in DECAYS:
        alone = RadialMask(decay_factor=decay)
        yield _ours(part, case, inputs, PSAConfig(radial=alone, use_rearrange=False), _name(alone))
        kept = static_levels(alone, case.grid, case.text_length, BLOCK_M, BLOCK_N).to(inputs.q.device) != 0
        row = Row.of(part, case, FLEX, block_n=BLOCK_N, mask=_name(alone), reached_density=float(kept.float().mean()))
        yield flex_contender_of(row, case, inputs, kept)
        pooled = alone.replace(mode="coarsen")
        yield _ours(part, case, inputs, PSAConfig(radial=pooled, use_rearrange=False), _name(pooled))
    chosen = Setting("mean").config(case).replace(use_rearrange=False)
    yield _ours(part, case, inputs, chosen, None)
    # A mask that cuts nothing leaves the same blocks, so that the times differ by the cost of combining alone.
    nothing = RadialMask(mode="intersect", sparsity_type="dense")
    yield _ours(part, case, inputs, chosen.replace(radial=nothing), "intersect, nothing cut")
    for mode in ("intersect", "finer wins"):
        both = RadialMask(mode=mode, decay_factor=DECAYS[0])
        yield _ours(part, case, inputs, chosen.replace(radial=both), _name(both))


def _name(mask: RadialMask) -> str:
    return f"{mask.mode}, decay {mask.decay_factor:g}"


def _ours(part: str, case: Case, inputs: Inputs, config: PSAConfig, mask: str | None) -> Contender:
    content = config.radial is None or not config.radial.decides_alone
    importance = config.importance if content else None
    row = Row.of(part, case, PSA, importance=importance, block_n=config.block_n, mask=mask)
    return psa_contender(row, case, config, inputs)
