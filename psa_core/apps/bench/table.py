"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .cases import CASES_PART, DENSITY_PART
from .results import PSA, WHOLE_OP, Results, Row

_NONE = "-"

Name = Callable[[Row], str]


def tables(results: Results, *more: str) -> str:
    """Every table that the rows fill, under one caption; ``more`` are tables to add."""
    cases = pivot("attention", of_part(results.rows, CASES_PART), attention_name, case_name)
    by_density = [row for row in of_part(results.rows, DENSITY_PART) if row.density is not None]
    densities = pivot("by density", by_density, setting_name, lambda row: f"{row.density:g}")
    return "\n\n".join(table for table in (results.caption(), cases, densities, *more) if table)


def time_and_ratio(row: Row) -> str:
    """``8.20 ms, 5.40x``, or a dash."""
    if row.ms is None:
        return _NONE
    return f"{row.ms:.2f} ms" + (f", {row.ratio:.2f}x" if row.ratio and row.ratio != 1 else "")


def lines_of_case(rows: Sequence[Row]) -> str:
    """What one case of one part has come to, a line each."""

    def line(row: Row) -> str:
        setting = attention_name(row) + (f", density {row.density:g}" if row.density is not None else "")
        what = ", ".join(text for text in (setting, row.mask, row.stage if row.stage != WHOLE_OP else "") if text)
        if row.refusal is not None:
            return f"  {what}: {row.refusal}"
        numbers = (
            time_and_ratio(row) if row.ms is not None else "",
            f"error {row.error:.2g}" if row.error is not None else "",
            f"{row.extra_memory:.2f} x k and v beside them" if row.extra_memory is not None else "",
        )
        return f"  {what}: {', '.join(number for number in numbers if number) or _NONE}"

    return "\n".join([*(f"{row.part}: {case_name(row)}" for row in rows[:1]), *map(line, rows)])


def pivot(title: str, rows: Iterable[Row], down: Name, across: Name, cell: Name = time_and_ratio) -> str:
    """A table in Markdown with a cell a row of the results, and below it why some are empty."""
    lines: dict[str, dict[str, str]] = {}
    refusals: dict[str, list[str]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        columns[across(row)] = None
        lines.setdefault(down(row), {})[across(row)] = cell(row)
        if row.refusal is not None:
            refusals.setdefault(f"{row.attention}: {row.refusal}", []).append(row.case)
    body = [[name, *(cells.get(column, _NONE) for column in columns)] for name, cells in lines.items()]
    notes = (f"- {reason} ({', '.join(dict.fromkeys(cases))})" for reason, cases in refusals.items())
    return "\n\n".join(text for text in (markdown([title, *columns], body), "\n".join(notes)) if text)


def of_part(rows: Iterable[Row], part: str) -> list[Row]:
    """The whole ops of a part."""
    return [row for row in rows if row.part == part and row.stage == WHOLE_OP]


def case_name(row: Row) -> str:
    """Case and tokens."""
    return f"{row.case} ({row.tokens:,})"


def setting_name(row: Row) -> str:
    """Case and attention."""
    return f"{row.case}, {attention_name(row)}"


def attention_name(row: Row) -> str:
    """Who computed it, and ours with its setting."""
    if row.attention != PSA:
        return row.attention
    if row.preset is not None:
        return f"PSA, preset {row.preset}"
    more = f"{', rest pooled' if row.tail else ''}{f', {row.precision}' if row.precision else ''}"
    bound = "" if row.max_extra_memory is None else f", in {row.max_extra_memory:g} GiB"
    return f"PSA, n = {row.block_n}, {row.importance}{more}{bound}"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table, or nothing when it has no lines."""
    if not body:
        return ""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
