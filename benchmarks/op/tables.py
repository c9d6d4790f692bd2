"""Results of every part as Markdown for the README."""

from __future__ import annotations

from collections.abc import Sequence

from psa_core.apps.bench.results import PSA, Results, Row
from psa_core.apps.bench.side_by_side import DTYPE
from psa_core.apps.bench.table import (
    attention_name,
    case_name,
    markdown,
    of_part,
    pivot,
    setting_name,
    tables,
    time_and_ratio,
)

from .cases import (
    FIELD_PART,
    LENGTH_PART,
    LOCALITY_PART,
    MASKS_PART,
    MEMORY_PART,
    MODEL_PART,
    PRECISION_PART,
    STAGES_PART,
)
from .crossover import crossovers


def all_tables(results: Results) -> str:
    """The tables of ``psa bench`` and those of the other parts, as far as the rows fill them."""
    return tables(results, *(make(results.rows) for make in _TABLES))


def _models(rows: Sequence[Row]) -> str:
    return pivot("forward pass", of_part(rows, MODEL_PART), attention_name, case_name)


def _lengths(rows: Sequence[Row]) -> str:
    def attention(row: Row) -> str:
        density = f", density {row.density:g}" if row.density else ""
        return f"{row.attention}, {row.importance}{density}" if row.attention == PSA else row.attention

    part = of_part(rows, LENGTH_PART)
    heads = dict.fromkeys(row.case for row in part)
    made = (
        pivot(f"tokens, {x}", [row for row in part if row.case == x], lambda row: f"{row.tokens:,}", attention)
        for x in heads
    )
    return "\n\n".join(made)


def _locality(rows: Sequence[Row]) -> str:
    body = [
        [case_name(row), str(row.importance), f"{row.reached_density:.2f}", time_and_ratio(row)]
        for row in of_part(rows, LOCALITY_PART)
        if row.attention == PSA and row.reached_density is not None
    ]
    return markdown(["thresholdbound, default bounds", "importance", "density reached", "PSA"], body)


def _masks(rows: Sequence[Row]) -> str:
    def name(row: Row) -> str:
        return ", ".join(str(part) for part in (row.attention, row.importance, row.mask) if part)

    def cell(row: Row) -> str:
        return time_and_ratio(row) + (f", density {row.reached_density:.2f}" if row.reached_density is not None else "")

    return pivot("masks", of_part(rows, MASKS_PART), name, case_name, cell)


def _crossovers(rows: Sequence[Row]) -> str:
    body = [
        [f"{x.heads} heads of {x.head_dim}", x.importance, f"{x.density:g}", f"{x.tokens:,}" if x.tokens else "none"]
        for x in crossovers(rows)
    ]
    return markdown(["heads", "importance", "density", "faster than dense from (tokens)"], body)


def _stages(rows: Sequence[Row]) -> str:
    """Settings down, stages across, in milliseconds."""
    ours = [row for row in rows if row.part == STAGES_PART and row.attention == PSA]
    return pivot("PSA by stage, ms", ours, setting_name, lambda row: row.stage, lambda row: f"{row.ms:.2f}")


def _field(rows: Sequence[Row]) -> str:
    return pivot("models and shapes", of_part(rows, FIELD_PART), attention_name, case_name)


def _precisions(rows: Sequence[Row]) -> str:
    """Settings down, stages across."""

    def setting(row: Row) -> str:
        density = "" if row.density is None else f", density {row.density:g}"
        return f"{setting_name(row)}{density}"

    def cell(row: Row) -> str:
        return time_and_ratio(row) if row.ms is not None or row.error is None else f"{row.error:.3f}"

    found = [row for row in rows if row.part == PRECISION_PART]
    return pivot("by precision", found, setting, lambda row: row.stage, cell)


def _gib(row: Row) -> str:
    bytes_of_k_and_v = 2 * row.tokens * row.heads * row.head_dim * DTYPE.itemsize
    memory = f"{(row.extra_memory or 0) * bytes_of_k_and_v / 2**30:.2f} GiB"
    return memory if row.ms is None else f"{memory}, {row.ms:.2f} ms"


def _memory(rows: Sequence[Row]) -> str:
    """Settings down, what takes memory across."""
    found = [row for row in rows if row.part == MEMORY_PART and row.attention == PSA]
    return pivot("beside q, k, v and out", found, setting_name, lambda row: row.stage, _gib)


_TABLES = (_field, _stages, _lengths, _crossovers, _locality, _precisions, _memory, _masks, _models)
