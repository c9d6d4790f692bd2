"""One run of the frontier: case by case and density by density, with what is done kept in the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from psa_core.apps.bench.measure import save_rows
from psa_core.apps.bench.results import WHOLE_OP, Results, Row
from psa_core.apps.bench.side_by_side import gpu, prepare, side_by_side
from psa_core.apps.bench.timing import QUICK, Contender, Effort

from .heads import Heads, Source
from .ours import BASE, BEST_POSSIBLE, PART, Entrant, choosing, chosen_line, our_entrants
from .rivals import rival_entrants

DENSITIES = (0.08, 0.15, 0.25)
QUICK_DENSITIES = (0.15,)


def run_frontier(
    sources: Sequence[Source], output: Path, densities: Sequence[float] = DENSITIES, quick: bool = False
) -> tuple[Results, Path]:
    """Check and measure everything. The file is written after each density, so that a run cut short keeps the rest.

    Args:
        sources: of heads.
        output: the folder for results.
        quick: few calls of each, and on a CPU where there is no GPU, whose times would mean nothing and are left out.

    Returns:
        The results, and the file written.

    Raises:
        BackendError: no GPU that can.
        WrongResultError: a result of ours, or of the dense backend, is wrong. Nothing has been printed then.
    """
    device = torch.device("cpu") if quick and not torch.cuda.is_available() else gpu("psa bench --frontier")
    rows: list[Row] = []
    progress = tqdm(total=len(sources) * len(densities), unit="density", dynamic_ncols=True)
    for source in sources:
        progress.set_description(f"{source.name} ({source.case.tokens:,} tokens): dense")
        heads = source.heads(device)
        for density in densities:
            progress.set_description(f"{source.name} ({source.case.tokens:,} tokens): density {density:g}")
            progress.write(chosen_line(heads, density))
            rows += density_rows(heads, density, QUICK if quick else Effort(), progress.refresh)
            results, file = save_rows(rows, output, PART, quick=quick)
            progress.update()
        del heads
    progress.close()
    return results, file


@torch.no_grad()
def density_rows(heads: Heads, density: float, effort: Effort, tick: Callable[[], Any] = lambda: None) -> list[Row]:
    """Everything at one density: checked, timed where there is a GPU, and then each one's error."""
    entrants = [*rival_entrants(heads, density), *our_entrants(heads, density)]
    contenders = [entrant.contender for entrant in entrants]
    if heads.on_gpu:
        rows = side_by_side([*contenders, choosing(heads, density)], effort, tick=tick)
    else:
        rows = [prepare(x) if isinstance(x, Contender) else x for x in contenders]
    taking_part = {row.attention for row in rows if row.refusal is None}
    errors = {name: errors_of(heads, entrant) for entrant in entrants if (name := _name(entrant)) in taking_part}
    best = torch.stack([errors[_name(entrant)] for entrant in entrants if entrant.fixed]).amin(0)
    rows.append(Row.of(PART, heads.case, BEST_POSSIBLE, density=density, block_n=BASE.block_n))
    errors[BEST_POSSIBLE] = best
    return [_with_error(row, errors) for row in rows]


def errors_of(heads: Heads, entrant: Entrant) -> torch.Tensor:
    """Relative error of every head's output against dense attention in float32, ``[steps, H]``."""
    return torch.stack([heads.errors(entrant.output(step), step) for step in entrant.steps or heads.later])


def _with_error(row: Row, errors: dict[str, torch.Tensor]) -> Row:
    if row.refusal is not None or row.stage != WHOLE_OP:
        return row
    return row.replace(error=float(errors[row.attention].mean()))


def _name(entrant: Entrant) -> str:
    contender = entrant.contender
    return (contender if isinstance(contender, Row) else contender.row).attention
