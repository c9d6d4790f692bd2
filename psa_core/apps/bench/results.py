"""Rows of numbers, the machine they come from, and the JSON file that keeps both."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...ops.backends import triton_release
from ...settings.errors import ConfigError
from ...settings.files import file_name, write_json
from .cases import Case
from .checkout import source_digest

PSA = "PSA"
WHOLE_OP = "whole op"
UNITS = {
    "density": "share of dense attention's FLOPs that was asked for",
    "reached_density": "share of dense attention's FLOPs that the level map has, text at full resolution included",
    "ms": "milliseconds on the GPU, median",
    "host_ms": "milliseconds until a call has been launched, median",
    "ratio": "milliseconds of the dense backend by these",
    "error": "relative error of norms: PSA, FlexAttention and the dense backend against float32 on the same level map, "
    "others against dense attention in float32",
    "extra_memory": "peak bytes beyond q, k, v and out, as a multiple of the bytes of k and v",
}


@dataclass(frozen=True)
class Row:
    """One measurement; :data:`UNITS` says what the numbers are.

    Attributes:
        part: of the benchmark: cases, density, field, length, locality, first call, stages, precision,
            memory, masks, model.
        case: model and size.
        attention: who computed it; ``"PSA"`` is ours.
        importance, block_n, density, tail: of our settings; None where they mean nothing. ``tail``: all other blocks
            are pooled to one row instead of skipped.
        preset: name of the preset that our settings are.
        precision: of ours at level 1; None for that of the tensors.
        max_extra_memory: bound of ours in GiB; None for none.
        stage: ``"whole op"``, or a part of it.
        mask: the radial mask, if there is one.
        refusal: why there are no numbers.
    """

    part: str
    case: str
    tokens: int
    heads: int
    head_dim: int
    text_length: int
    attention: str
    importance: str | None = None
    block_n: int | None = None
    density: float | None = None
    tail: bool = False
    stage: str = WHOLE_OP
    reached_density: float | None = None
    ms: float | None = None
    host_ms: float | None = None
    ratio: float | None = None
    error: float | None = None
    extra_memory: float | None = None
    refusal: str | None = None
    mask: str | None = None
    preset: str | None = None
    precision: str | None = None
    max_extra_memory: float | None = None

    @classmethod
    def of(cls, part: str, case: Case, attention: str, **more: Any) -> Row:
        """A row of a case."""
        return cls(part, case.name, case.tokens, case.heads, case.head_dim, case.text_length, attention, **more)

    def replace(self, **changes: Any) -> Row:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Machine:
    """What was measured on.

    Attributes:
        gpu: its name, or that torch sees none.
        driver: its version.
        date: ISO's.
        capability: NVIDIA's compute capability, such as ``9.0``.
        system: Python and the operating system.
        psa, comfyui: versions of this package, and of ComfyUI where it is the host.
        source: the first digits of a hash over the code that measured.
    """

    gpu: str
    driver: str | None
    torch: str
    triton: str | None
    date: str
    capability: str | None = None
    system: str | None = None
    psa: str | None = None
    comfyui: str | None = None
    source: str | None = None

    @classmethod
    def here(cls, comfyui: str | None = None) -> Machine:
        """This one, today."""
        gpu, capability, driver = "no GPU", None, None
        if torch.cuda.is_available():
            gpu, driver = torch.cuda.get_device_name(), _driver()
            capability = ".".join(map(str, torch.cuda.get_device_capability()))
        return cls(
            gpu,
            driver,
            torch.__version__,
            triton_release(),
            datetime.date.today().isoformat(),
            capability,
            f"Python {platform.python_version()}, {platform.platform()}",
            __version__,
            comfyui,
            source_digest(),
        )

    def measures_like(self, other: Machine) -> bool:
        """Whether both are the same machine with the same software and the same code, on whatever day."""
        return dataclasses.replace(self, date=other.date) == other


@dataclass(frozen=True)
class Results:
    """One run.

    Attributes:
        dense: the dense backend that ratios are against.
    """

    machine: Machine
    dense: str
    rows: Sequence[Row]

    def caption(self) -> str:
        """One line on where the numbers come from."""
        machine = self.machine
        return f"{machine.gpu}, {machine.date}, torch {machine.torch}, Triton {machine.triton}, dense = {self.dense}"

    def save(self, file: Path) -> None:
        """Write JSON."""
        write_json(file, self.as_document())

    def as_document(self) -> dict[str, Any]:
        """All of it for JSON, and what the numbers of rows are."""
        return {**dataclasses.asdict(self), "units": UNITS}

    @classmethod
    def load(cls, file: Path) -> Results:
        """Read what :meth:`save` has written.

        Raises:
            ConfigError: the file holds something else.
            OSError: there is no such file.
        """
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            rows = [Row(**row) for row in document["rows"]]
            return cls(Machine(**document["machine"]), document["dense"], rows)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                "results", str(file), f"must be a JSON file that psa bench has written ({error})"
            ) from None


def file_stem(gpu: str, *parts: str) -> str:
    """Name of a results file without its ending: ``NVIDIA_H200``, or ``NVIDIA_H200-quick`` for less than all."""
    return file_name("-".join("_".join(part.split()) for part in (gpu, *parts)))


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.split("\n", 1)[0].strip() or None
