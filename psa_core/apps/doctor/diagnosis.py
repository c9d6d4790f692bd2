"""What the doctor says: findings and measurements as text and as a document."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...settings.errors import ConfigError
from ..bench.results import PSA, Machine, Results, Row
from ..bench.rivals import CUDNN, INT8, SAGE, TORCH
from ..bench.table import attention_name, markdown, time_and_ratio
from .clip import Clip
from .findings import Finding, as_lines, findings
from .measure import HostAttention, Progress, measure_card

_WHAT = (
    "One call of self-attention in bfloat16, median; speed-up over {dense}. error: relative, to float32; of PSA to the "
    "same blocks. A run gains less: warm-up steps stay dense, and attention is a part of a model's time."
)

# What ``dense_backend`` calls them, and whether they are exact.
_DENSE_BACKENDS = {CUDNN: ("cudnn", True), INT8: ("comfy_kitchen", False), SAGE: ("sage", False)}
# Less than this is not worth a setting.
_FASTER = 1.05


@dataclass(frozen=True)
class Host:
    """What runs the doctor, where it is not the command line.

    Attributes:
        facts: what it says of itself.
        presets: the folder of the user's own presets.
        version: ComfyUI's.
        attention: its dense attention.
        device: where models run.
    """

    facts: Sequence[Finding] = ()
    presets: Path | None = None
    version: str | None = None
    attention: HostAttention | None = None
    device: torch.device | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What was found on this machine.

    Attributes:
        findings: of the machine.
        clip: what was to be measured.
        results: the measurements; without rows where there are none.
        reason: why there are none.
    """

    findings: Sequence[Finding]
    clip: Clip
    results: Results
    reason: str | None = None

    def text(self) -> str:
        """All of it, for people and for reports."""
        what = _WHAT.format(dense=self.results.dense)
        measured = (
            self.caption() if self.reason else f"{self.caption()}\n\n{self.table()}\n\n{self.dense_advice()}\n{what}"
        )
        return "\n".join([*as_lines(self.findings), "", measured])

    def caption(self) -> str:
        """The answer in a line, and what it is of; or why there is none."""
        if self.reason:
            return f"Not measured: {self.reason}"
        heads = min((row.heads for row in self.results.rows), default=self.clip.heads)
        fewer = "" if heads == self.clip.heads else f" ({heads} of them measured, to stay under a minute)"
        faster = (
            f"{attention_name(row)} is {row.ratio:.2f}x as fast as {self.results.dense}: "
            for row in self.results.rows
            if row.attention == PSA and row.ratio is not None
        )
        return f"{next(faster, '')}{self.clip.text()}{fewer}"

    def table(self) -> str:
        """A Markdown table with a line for each attention that was measured, and below it why others were not."""
        head = ["attention", "ms", "speed-up", "error", "density"]
        rows = [row for row in self.results.rows if row.ms is not None]
        lines = [head, *([cell(row) for cell in _CELLS] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
        return "\n\n".join(part for part in (markdown(padded[0], padded[1:]), "\n".join(self._notes())) if part)

    def dense_advice(self) -> str:
        """Which ``dense_backend`` to choose, in a sentence."""
        rows = [(row.ratio or 0.0, row.attention) for row in self.results.rows if row.attention in _DENSE_BACKENDS]
        faster = sorted((each for each in rows if each[0] >= _FASTER), reverse=True)
        exact = next((each for each in faster if _DENSE_BACKENDS[each[1]][1]), None)
        if not faster:
            return f"For dense steps: dense_backend model, as no other is faster than {self.results.dense} here."
        said = [] if exact is None else [_choice(*exact, self.results.dense)]
        if faster[0] != exact:
            said.append(f"{_choice(*faster[0], self.results.dense)}, in INT8, which is an approximation")
        return f"For dense steps: {'; or '.join(said)}."

    def _notes(self) -> list[str]:
        """Why an attention has no numbers."""
        return [f"- {attention_name(row)}: {row.refusal}" for row in self.results.rows if row.ms is None]

    def picture(self) -> Any:
        """All of it as a Pillow image."""
        # Only ComfyUI is sure to have Pillow.
        from ...report.pictures.speed import Bar, speed_picture

        title = f"PSA Doctor: {self.results.machine.gpu}"
        bars = [
            Bar(attention_name(row), row.ms, time_and_ratio(row), row.attention == PSA)
            for row in self.results.rows
            if row.ms is not None
        ]
        notes = [*self._notes(), *([] if self.reason else [self.dense_advice()])]
        return speed_picture(title, self.caption(), bars, notes, self.findings)

    def as_json(self) -> str:
        """All of it, to be posted."""
        document = {
            **self.results.as_document(),
            "clip": self.clip.text(),
            "not_measured": self.reason,
            "dense_advice": None if self.reason else self.dense_advice(),
            "findings": as_lines(self.findings),
        }
        return json.dumps(document, indent=1, allow_nan=False)


def _choice(ratio: float, attention: str, dense: str) -> str:
    return f"dense_backend {_DENSE_BACKENDS[attention][0]}, {ratio:.2f}x as fast as {dense}"


_CELLS: tuple[Callable[[Row], str], ...] = (
    attention_name,
    lambda row: f"{row.ms:.2f}",
    lambda row: "-" if row.ratio is None else f"{row.ratio:.2f}x",
    lambda row: "-" if row.error is None else f"{row.error:.1e}",
    lambda row: f"{row.reached_density:.2f}" if row.attention == PSA and row.reached_density is not None else "1",
)


def diagnose(clip: Clip, host: Host | None = None, progress: Progress = lambda done, whole: None) -> Diagnosis:
    """Look at this machine and measure it. What cannot be measured is said, not raised.

    Args:
        clip: what to measure.
        host: what runs the doctor; None for the command line.
        progress: as :func:`~.measure.measure_card` takes it.
    """
    host = host or Host()
    machine, said = Machine.here(host.version), findings(host.facts, host.presets)
    try:
        rows = measure_card(clip, host.attention, host.device, progress)
    # RuntimeError: whatever a GPU can say.
    except (ConfigError, RuntimeError) as failure:
        return Diagnosis(said, clip, Results(machine, "none", ()), str(failure).strip().splitlines()[0])
    dense = next((row.attention for row in rows if row.ratio == 1), host.attention.name if host.attention else TORCH)
    return Diagnosis(said, clip, Results(machine, dense, rows))
