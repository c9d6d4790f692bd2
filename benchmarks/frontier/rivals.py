"""Dense attention, FlexAttention on top blocks, and Sol-Attn in raster and in Gilbert order, on the same heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch.nn.attention import SDPBackend

from psa_core.apps.bench.inputs import Inputs
from psa_core.apps.bench.results import Row
from psa_core.apps.bench.rivals import SOL, sdpa_contender, sol_contender, taking_part
from psa_core.apps.bench.timing import Contender
from psa_core.ops.reorder import order_index
from psa_core.ops.reorder.orders import inverse

from ..op.flex import BLOCK_N, FLEX, flex_contender_of, top_blocks
from .heads import Heads
from .ours import PART, Entrant

SOL_GILBERT = f"{SOL}, Gilbert order"
_TILES = (2, 8, 8)


def rival_entrants(heads: Heads, density: float) -> Iterator[Entrant]:
    """All of them at one density; the dense backend comes first."""
    case = heads.case
    backend = SDPBackend.CUDNN_ATTENTION if heads.on_gpu else None
    yield _entrant(heads, lambda inputs: sdpa_contender(PART, case, inputs, backend))
    if not heads.on_gpu:
        for name in (FLEX, SOL, SOL_GILBERT):
            yield Entrant(Row.of(PART, case, name, density=density, refusal="measured on a GPU alone"), _no_output)
        return

    def flex(inputs: Inputs) -> Contender:
        # Blocks are chosen before the clock starts, in each step anew.
        kept = top_blocks(inputs, density)
        reached = float(kept.float().mean())
        row = Row.of(PART, case, FLEX, block_n=BLOCK_N, density=density, reached_density=reached)
        return flex_contender_of(row, case, inputs, kept)

    yield _entrant(heads, flex)

    def sol(inputs: Inputs) -> Contender | Row:
        row = Row.of(PART, case, SOL, density=density)
        return taking_part(row, lambda: sol_contender(PART, case, inputs, density))

    yield _entrant(heads, sol)
    index = order_index(("Gilbert",), case.grid, _TILES, 0, heads.steps[0].q.device)
    yield _in_order(_entrant(heads, lambda inputs: sol(_take(inputs, index[0]))), inverse(index)[0])


def _entrant(heads: Heads, make: Callable[[Inputs], Contender | Row]) -> Entrant:
    def output(step: int) -> torch.Tensor:
        contender = make(heads.steps[step])
        assert isinstance(contender, Contender)
        with contender.context():
            return contender.call()

    return Entrant(make(heads.steps[heads.later[0]]), output)


def _in_order(entrant: Entrant, back: torch.Tensor) -> Entrant:
    """Sol-Attn is given its tokens in order, which costs it nothing here."""
    contender = entrant.contender
    if isinstance(contender, Row):
        renamed: Contender | Row = contender.replace(attention=SOL_GILBERT)
    else:
        renamed = replace(contender, row=contender.row.replace(attention=SOL_GILBERT))
    return Entrant(renamed, lambda step: entrant.output(step).index_select(2, back))


def _take(inputs: Inputs, index: torch.Tensor) -> Inputs:
    """Tokens in this order, with the strides that models give them."""
    return Inputs(*(x.transpose(1, 2).index_select(1, index).transpose(1, 2) for x in inputs))


def _no_output(step: int) -> torch.Tensor:
    raise AssertionError("what takes no part has no output")
