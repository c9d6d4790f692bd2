"""Results as Markdown for the README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .cases import CASES_PART, LENGTH_PART, LOCALITY_PART, MASKS_PART, MODEL_PART, STAGES_PART
from .crossover import crossovers
from .results import PSA, WHOLE_OP, Results, Row

_NONE = "-"

Name = Callable[[Row], str]


def tables(results: Results) -> str:
    """Every table that the rows fill, under one caption."""
    made = (make(results.rows) for make in (_cases, _stages, _lengths, _crossovers, _locality, _masks, _models))
    return "\n\n".join([results.caption(), *(table for table in made if table)])


def _cases(rows: Sequence[Row]) -> str:
    return _pivot("attention", _of_part(rows, CASES_PART), _attention_name, _case_name)


def _models(rows: Sequence[Row]) -> str:
    return _pivot("forward pass", _of_part(rows, MODEL_PART), _attention_name, _case_name)


def _lengths(rows: Sequence[Row]) -> str:
    def attention(row: Row) -> str:
        density = f", density {row.density:g}" if row.density else ""
        return f"{row.attention}, {row.importance}{density}" if row.attention == PSA else row.attention

    part = _of_part(rows, LENGTH_PART)
    heads = dict.fromkeys(row.case for row in part)
    made = (
        _pivot(f"tokens, {x}", [row for row in part if row.case == x], lambda row: f"{row.tokens:,}", attention)
        for x in heads
    )
    return "\n\n".join(made)


def _locality(rows: Sequence[Row]) -> str:
    body = [
        [_case_name(row), str(row.importance), f"{row.reached_density:.2f}", _cell(row)]
        for row in _of_part(rows, LOCALITY_PART)
        if row.attention == PSA and row.reached_density is not None
    ]
    return _markdown(["thresholdbound, default bounds", "importance", "density reached", "PSA"], body)


def _masks(rows: Sequence[Row]) -> str:
    def name(row: Row) -> str:
        return ", ".join(str(part) for part in (row.attention, row.importance, row.mask) if part)

    def cell(row: Row) -> str:
        return _cell(row) + (f", density {row.reached_density:.2f}" if row.reached_density is not None else "")

    return _pivot("masks", _of_part(rows, MASKS_PART), name, _case_name, cell)


def _crossovers(rows: Sequence[Row]) -> str:
    body = [
        [f"{x.heads} heads of {x.head_dim}", x.importance, f"{x.density:g}", f"{x.tokens:,}" if x.tokens else "none"]
        for x in crossovers(rows)
    ]
    return _markdown(["heads", "importance", "density", "faster than dense from (tokens)"], body)


def _stages(rows: Sequence[Row]) -> str:
    """Settings down, stages across, in milliseconds."""
    ours = [row for row in rows if row.part == STAGES_PART and row.attention == PSA]
    return _pivot("PSA by stage, ms", ours, _setting_name, lambda row: row.stage, lambda row: f"{row.ms:.2f}")


def _pivot(title: str, rows: Iterable[Row], down: Name, across: Name, cell: Name | None = None) -> str:
    """A table of cells, and below it why some are empty."""
    lines: dict[str, dict[str, str]] = {}
    refusals: dict[str, list[str]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        columns[across(row)] = None
        lines.setdefault(down(row), {})[across(row)] = (cell or _cell)(row)
        if row.refusal is not None:
            refusals.setdefault(f"{row.attention}: {row.refusal}", []).append(row.case)
    body = [[name, *(cells.get(column, _NONE) for column in columns)] for name, cells in lines.items()]
    notes = (f"- {reason} ({', '.join(dict.fromkeys(cases))})" for reason, cases in refusals.items())
    return "\n\n".join(text for text in (_markdown([title, *columns], body), "\n".join(notes)) if text)


def _of_part(rows: Iterable[Row], part: str) -> list[Row]:
    return [row for row in rows if row.part == part and row.stage == WHOLE_OP]


def _case_name(row: Row) -> str:
    return f"{row.case} ({row.tokens:,})"


def _setting_name(row: Row) -> str:
    return f"{row.case}, {_attention_name(row)}"


def _attention_name(row: Row) -> str:
    if row.attention != PSA:
        return row.attention
    tail = ", rest pooled" if row.tail else ""
    return f"PSA, n = {row.block_n}, {row.importance}{tail}"


def _cell(row: Row) -> str:
    if row.ms is None:
        return _NONE
    return f"{row.ms:.2f} ms" + (f", {row.ratio:.2f}x" if row.ratio and row.ratio != 1 else "")


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if not body:
        return ""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
