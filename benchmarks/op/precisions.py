"""Our op in every precision that the GPU has: maps made and kept, the kernel alone, and the error that it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from psa_core.apps.bench.cases import BLOCK_M, DENSITY, Case
from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.ours import IMPORTANCE, Setting, psa_contender
from psa_core.apps.bench.results import WHOLE_OP, Row
from psa_core.apps.bench.rivals import dense_rivals, sdpa_contender
from psa_core.apps.bench.side_by_side import DTYPE
from psa_core.apps.bench.timing import Contender
from psa_core.attention.level_map import LevelMap
from psa_core.attention.steps import sparse_attention
from psa_core.ops.attention.dispatch import pack_for_hopper, pyramid_attention, runs_int8_on_hopper
from psa_core.ops.attention.quantised import pack_for, quantised_attention_triton
from psa_core.ops.attention.triton import pyramid_attention_triton
from psa_core.ops.block_list.build import build_block_list
from psa_core.ops.precision import PRECISIONS, precisions
from psa_core.ops.pyramid.rows import build_pyramid
from psa_core.settings.config import PSAConfig
from psa_core.settings.sinks import text_in_front

from .memory import with_memory
from .stages import KERNEL, LEVEL_1_SUFFIX

DENSITIES = (0.08, DENSITY)
KEPT = f"{WHOLE_OP}, map kept"
PORTABLE_KERNEL = "portable kernel"
ADDED = "added by quantisation"


def precision_contenders(part: str, case: Case, inputs: Inputs) -> Iterator[Contender | Row]:
    """The dense backend, its rivals, and our op with each density and estimator; and the kernels over level 1 alone."""
    yield sdpa_contender(part, case, inputs)
    yield from dense_rivals(part, case, inputs)
    for precision in precisions(inputs.q.device, DTYPE, case.head_dim):
        for density in DENSITIES:
            for importance in IMPORTANCE:
                setting = Setting(importance, density=density, precision=precision)
                yield from _whole_ops(setting.row(part, case), case, setting.config(case), inputs)
        yield from _level_1(part, case, inputs, precision)


def _whole_ops(row: Row, case: Case, config: PSAConfig, inputs: Inputs) -> Iterator[Contender]:
    """The op whose map is made, the same with the map kept, and at one density the kernel in it."""
    yield with_memory(psa_contender(row, case, config, inputs), inputs)
    level_map, with_map = _kept(case, config, inputs)
    yield Contender(row.replace(stage=KEPT), with_map)
    # What kernels read is held for each of them.
    if row.density == DENSITY:
        yield Contender(row.replace(stage=KERNEL), _kernel(level_map, config, inputs))


def _level_1(part: str, case: Case, inputs: Inputs, precision: str) -> Iterator[Contender | Row]:
    """The kernel over level 1 alone; the portable one beside that for Hopper; and what quantisation adds."""
    setting = Setting(IMPORTANCE[0], precision=precision)
    density = case.density_beside_text(DENSITY, setting.block_n)
    config = setting.config(case).replace(mask_ratios={1: (0.0, density), 0: (density, 1.0)})
    level_map, with_map = _kept(case, config, inputs)
    row = setting.row(part, case).replace(reached_density=float((level_map.levels == 1).float().mean()))
    yield Contender(row.replace(stage=KERNEL + LEVEL_1_SUFFIX), _kernel(level_map, config, inputs))
    if precision == PRECISIONS[0]:
        portable = _kernel(level_map, config, inputs, pyramid_attention_triton)
        yield Contender(row.replace(stage=PORTABLE_KERNEL + LEVEL_1_SUFFIX), portable)
        return
    _, exact = _kept(case, config.replace(precision=PRECISIONS[0]), inputs, level_map)
    dense = torch.nn.functional.scaled_dot_product_attention(*inputs)
    yield row.replace(stage=ADDED, error=_norm(with_map() - exact()) / _norm(dense))


def _kept(
    case: Case, config: PSAConfig, inputs: Inputs, level_map: LevelMap | None = None
) -> tuple[LevelMap, Callable[[], torch.Tensor]]:
    """A level map, and the op over it."""
    call = partial(
        sparse_attention, *inputs, config, case.grid, text_in_front(case.text_length), static_levels=None,
        backend="triton",
    )  # fmt: skip
    found = level_map or call().level_map
    assert found is not None
    return found, lambda: call(level_map=found).out


def _kernel(
    level_map: LevelMap, config: PSAConfig, inputs: Inputs, attention: Callable[..., torch.Tensor] = pyramid_attention
) -> Callable[[], torch.Tensor]:
    """The kernel over what is made ready for it; ``attention``: the one that runs in the tensors' precision."""
    q, k, v = inputs
    orders, block_n = level_map.orders, config.block_n
    block_list = build_block_list(level_map.levels, level_map.max_level, block_n, k.shape[2], "triton")
    max_level, pooled = level_map.max_level, level_map.pooled
    if config.precision == PRECISIONS[0]:
        pyramid = build_pyramid(k, v, max_level, "triton", orders, pooled)
        return partial(attention, q, k, v, block_list, pyramid, BLOCK_M, block_n, orders)
    if config.precision == "int8" and runs_int8_on_hopper(q.device, q.dtype, q.shape[3], BLOCK_M, block_n):
        from psa_core.ops.attention.hopper import pyramid_attention_hopper

        pyramid, packed = build_pyramid(k, v, max_level, "triton", orders, pooled), pack_for_hopper(k, v, orders)
        return partial(pyramid_attention_hopper, q, k, v, block_list, pyramid, block_n, orders, packed=packed)
    packed = pack_for(k, v, config.precision, BLOCK_M, block_n, max_level, orders, pooled)
    return partial(quantised_attention_triton, q, k, v, block_list, packed, BLOCK_M, block_n, orders)


def _norm(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float32))
