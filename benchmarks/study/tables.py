"""The study from captured calls to tables."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tqdm import tqdm

from .capture import capture_calls
from .measure import Heads, measure, sharp_heads
from .questions import DENSITIES, QUESTIONS, Setting

# How far, as a share, a density may be from the one that its column names.
_TOLERANCE = 0.02


@torch.inference_mode()
def run_study() -> Iterator[str]:
    """A table in Markdown for every question; about ten minutes on one core."""
    calls = capture_calls()
    sharp = sharp_heads(calls)
    known: dict[Setting, list[Heads]] = {}
    settings = dict.fromkeys(setting for columns in QUESTIONS.values() for setting in columns.values())
    progress = tqdm(total=len(settings), unit="setting", dynamic_ncols=True)
    for question, columns in QUESTIONS.items():
        for setting in columns.values():
            if setting not in known:
                known[setting] = measure(calls, setting, DENSITIES)
                progress.update()
        yield _table(question, {name: known[setting] for name, setting in columns.items()}, sharp)
    progress.close()


def _table(question: str, columns: dict[str, list[Heads]], sharp: torch.Tensor) -> str:
    """A line a setting, a column a density; errors of all heads and, in brackets, of sharp and of diffuse ones."""
    lines = [f"| {question} | {' | '.join(map(str, DENSITIES))} |", "|---|" + "---|" * len(DENSITIES)]
    for name, found in columns.items():
        cells = [_cell(heads, wanted, sharp) for heads, wanted in zip(found, DENSITIES, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(heads: Heads, wanted: float, sharp: torch.Tensor) -> str:
    """Says the density where it is not the one that was wanted."""
    every, of_sharp, of_diffuse = (float(heads.error[x].mean()) for x in (slice(None), sharp, ~sharp))
    off = f", density {heads.density:.3f}" if abs(heads.density / wanted - 1) > _TOLERANCE else ""
    return f"{every:.3f} ({of_sharp:.3f}, {of_diffuse:.3f}){off}"
