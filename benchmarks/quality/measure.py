"""One run of the quality bench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from psa_core.apps.bench.results import file_stem

from .cases import quality_cases
from .results import QualityRow, quality_table, save_rows
from .sample import QualitySampler


def measure_cases() -> Iterator[QualityRow]:
    """Every case against dense attention, one by one."""
    sampler = QualitySampler()
    dense = sampler.dense()
    for case in quality_cases():
        yield sampler.measure(case, dense)


def run_quality(output: Path) -> Path:
    """Measure, print a table and write it; the CPU's file is the baseline of the tests.

    Returns:
        The file written.
    """
    cases = measure_cases()
    rows = list(tqdm(cases, total=len(quality_cases()), unit="case", dynamic_ncols=True))
    on_gpu = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if on_gpu else "CPU"
    file = output / f"{file_stem(machine, 'quality') if on_gpu else 'quality'}.json"
    save_rows(rows, f"{machine}, torch {torch.__version__}", file)
    print(quality_table(rows))
    return file
