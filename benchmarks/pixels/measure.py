"""One run of the pixel study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from psa_core.apps.bench.results import file_stem
from psa_core.apps.bench.side_by_side import reason_of
from psa_core.report.quality import flicker, measure_quality

from .cases import Setting, Study
from .results import PixelRow, save_rows
from .sample import Sampler

# PSNR and SSIM are taken of one frame in so many: that of each frame of tokens.
_EVERY = 4


def run_pixels(studies: Sequence[Study], output: Path, *kind: str) -> tuple[list[PixelRow], Path]:
    """Make and measure every clip; the file is written after each setting, so that a run cut short keeps the rest.

    Args:
        kind: words for the file's name.

    Returns:
        A row for each size and setting, and the file written.
    """
    sampler = Sampler()
    machine = torch.cuda.get_device_name() if sampler.device.type == "cuda" else "CPU"
    file = output / f"{file_stem(machine, 'pixels', *kind)}.json"
    rows: list[PixelRow] = []
    progress = tqdm(total=sum(len(study.settings) for study in studies), unit="setting", dynamic_ncols=True)
    for study in studies:
        progress.set_description(f"{study.name}: dense")
        dense = sampler.dense(study).videos
        for setting in study.settings:
            progress.set_description(f"{study.name}: {setting.name}")
            rows.append(_measure(sampler, study, setting, dense))
            save_rows(rows, file)
            progress.update()
    progress.close()
    return rows, file


def _measure(sampler: Sampler, study: Study, setting: Setting, dense: np.ndarray) -> PixelRow:
    start = time.perf_counter()
    try:
        videos, density = sampler.sparse(study, setting)
    # What a rival raises is its own affair.
    except Exception as failure:
        if setting.config is not None:
            raise
        return PixelRow(study.name, setting.name, refusal=reason_of(failure))
    seconds = time.perf_counter() - start
    # NumPy and SciPy let other threads run meanwhile.
    with ThreadPoolExecutor() as threads:
        quality = list(threads.map(measure_quality, videos[:, ::_EVERY], dense[:, ::_EVERY]))
        changes = [x for x in threads.map(flicker, videos, dense) if x is not None]
    psnr = tuple(found.mean_psnr for found in quality)
    ssim = tuple(found.mean_ssim for found in quality)
    return PixelRow(study.name, setting.name, density, psnr, ssim, tuple(changes), seconds)
