"""Both checkouts measured in turns, call by call, so that clocks and heat weigh on both alike."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from psa_core.apps.bench.cases import Case
from psa_core.apps.bench.checkout import ROOT
from psa_core.apps.bench.ours import IMPORTANCE, SETTINGS, Setting
from psa_core.apps.bench.results import PSA, Row
from psa_core.apps.bench.table import case_name, pivot
from psa_core.ops.precision import PRECISIONS
from psa_core.settings.config import PSAConfig
from psa_core.settings.validation import plain

from .commit import checked_out

PART = "base"
BASE_SETTINGS = (*SETTINGS, *(Setting(name, precision=p) for name in IMPORTANCE for p in PRECISIONS[1:]))
_WORKER = Path(__file__).with_name("worker.py")
_ROUNDS, _QUICK_ROUNDS = 5, 2


def compare(
    ref: str, cases: Sequence[Case], device: str, quick: bool = False, settings: Sequence[Setting] = BASE_SETTINGS
) -> tuple[str, list[Row]]:
    """Measure the op of this checkout, as its files are now, and that of a commit.

    Args:
        ref: the commit, as git knows it.
        cases, settings: what to measure.
        device: where.
        quick: with fewer rounds.

    Returns:
        The name of the commit, and two rows for each case and setting; the ratio of this checkout's is the other's time
        by its own.

    Raises:
        ConfigError: there is no git, no repository, or no such commit.
    """
    rows: list[Row] = []
    rounds = range(_QUICK_ROUNDS if quick else _ROUNDS)
    with ExitStack() as stack:
        name, folder = stack.enter_context(checked_out(ref))
        workers = [stack.enter_context(_worker(tree, device)) for tree in (folder, ROOT)]
        for case, setting in tqdm([(case, setting) for case in cases for setting in settings], dynamic_ncols=True):
            in_turns = [[_ask(worker, case, setting) for worker in workers] for _ in rounds]
            base, here = (_row(case, setting, answers) for answers in zip(*in_turns, strict=True))
            ratio = base.ms / here.ms if base.ms and here.ms else None
            rows += [base.replace(attention=at(name)), here.replace(ratio=ratio)]
    return name, rows


def at(name: str) -> str:
    """Who computed the rows of a commit."""
    return f"{PSA} at {name}"


def base_table(rows: Sequence[Row], name: str) -> str:
    """Settings down, cases across: this checkout's time, and the commit's by it."""
    other = {(row.case, _setting(row)): row for row in rows if row.attention == at(name)}

    def cell(row: Row) -> str:
        before = other[row.case, _setting(row)]
        if row.ms is None or before.ms is None:
            return "-"
        return f"{before.ms:.2f} -> {row.ms:.2f} ms, {before.ms / row.ms:.3f}x{_denser(before, row)}"

    table = pivot(f"{at(name)} -> now", [row for row in rows if row.attention == PSA], _setting, case_name, cell)
    refused = dict.fromkeys(f"- {row.attention}, {_setting(row)}: {row.refusal}" for row in rows if row.refusal)
    return "\n\n".join(part for part in (table, "\n".join(refused)) if part)


def _denser(before: Row, row: Row) -> str:
    """What would make the ratio unfair."""
    densities = f"{before.reached_density:.3f}", f"{row.reached_density:.3f}"
    return "" if densities[0] == densities[1] else f", density {' -> '.join(densities)}"


def _setting(row: Row) -> str:
    tail = ", rest pooled" if row.tail else ""
    return f"n = {row.block_n}, {row.importance}{tail}{f', {row.precision}' if row.precision else ''}"


def _row(case: Case, setting: Setting, answers: Sequence[dict[str, Any]]) -> Row:
    row = setting.row(PART, case)
    refusal = next((answer["refusal"] for answer in answers if "refusal" in answer), None)
    if refusal is not None:
        return row.replace(refusal=refusal)
    ms, host_ms = (statistics.median(answer[key] for answer in answers) for key in ("ms", "host_ms"))
    return row.replace(ms=ms, host_ms=host_ms, reached_density=answers[0]["density"])


def _ask(worker: subprocess.Popen[str], case: Case, setting: Setting) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    # An older commit need not know every setting, but for those that are asked for.
    defaults = plain(PSAConfig())
    changed = {key: value for key, value in plain(setting.config(case)).items() if value != defaults[key]}
    print(json.dumps({"case": dataclasses.asdict(case), "config": repr(changed)}), file=worker.stdin, flush=True)
    answer = worker.stdout.readline()
    return json.loads(answer) if answer else {"refusal": f"its process ended with {worker.wait()}"}


@contextmanager
def _worker(folder: Path, device: str) -> Iterator[subprocess.Popen[str]]:
    """A process that measures the package in a folder."""
    command = [sys.executable, str(_WORKER), str(folder), device]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with subprocess.Popen(command, **pipes) as worker:
        try:
            yield worker
        finally:
            # Its input ends with it.
            assert worker.stdin is not None
            worker.stdin.close()
