"""What the pixel study finds: a row for each size and setting, its file, its table and its targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, quantiles

from psa_core.apps.bench.results import Machine
from psa_core.apps.bench.table import markdown
from psa_core.report.quality import ANOTHER_VIDEO, psnr_as_plain
from psa_core.settings.files import write_json

from ..target import Target
from .cases import BEST_FIXED, CALIBRATED, PRESET, SOL, STUDIES

UNITS = {
    "density": "share of dense attention's FLOPs in the sparse calls, mean",
    "psnr": "dB against the dense clip, one number a clip: mean over every fourth frame",
    "ssim": "against the dense clip, likewise",
    "flicker": "error of changes from frame to frame against the dense clip's, relative, one number a clip",
    "seconds": "that all clips took, from text to pixels",
}


@dataclass(frozen=True)
class PixelRow:
    """One setting at one size; :data:`UNITS` says what the numbers are.

    Attributes:
        size: of the clips.
        refusal: why there are no numbers.
    """

    size: str
    setting: str
    density: float | None = None
    psnr: tuple[float, ...] = ()
    ssim: tuple[float, ...] = ()
    flicker: tuple[float, ...] = ()
    seconds: float | None = None
    refusal: str | None = None

    @property
    def mean_psnr(self) -> float:
        return fmean(self.psnr)

    @property
    def others(self) -> int:
        """Clips that became another video."""
        return sum(value < ANOTHER_VIDEO for value in self.psnr)


def save_rows(rows: Sequence[PixelRow], file: Path) -> None:
    """Write JSON."""
    plain = [{**dataclasses.asdict(row), "psnr": [psnr_as_plain(x) for x in row.psnr]} for row in rows]
    write_json(file, {"machine": dataclasses.asdict(Machine.here()), "units": UNITS, "rows": plain})


def pixel_table(rows: Sequence[PixelRow]) -> str:
    """One line a size and setting, in Markdown."""
    head = ["clips", "setting", "density", "PSNR, mean", "median (quartiles)", "under 20 dB", "SSIM", "flicker"]
    return markdown(head, [_line(row) for row in rows])


def _line(row: PixelRow) -> list[str]:
    if row.refusal is not None:
        return [row.size, f"{row.setting}: {row.refusal}", *["-"] * 6]
    low, middle, high = quantiles(row.psnr, n=4, method="inclusive")
    return [
        f"{len(row.psnr)} of {row.size}",
        row.setting,
        "-" if row.density is None else f"{row.density:.3f}",
        f"{row.mean_psnr:.2f} dB",
        f"{middle:.2f} ({low:.2f}, {high:.2f})",
        str(row.others),
        f"{median(row.ssim):.4f}",
        f"{median(row.flicker):.3f}",
    ]


def _gain(size: str, other: str) -> Callable[[Sequence[PixelRow]], float | None]:
    """By how much calibrated attention is nearer to dense, in dB, mean over clips."""

    def figure(rows: Sequence[PixelRow]) -> float | None:
        found = {row.setting: row for row in rows if row.size == size and row.psnr}
        ours, theirs = found.get(CALIBRATED), found.get(other)
        return ours.mean_psnr - theirs.mean_psnr if ours is not None and theirs is not None else None

    return figure


TARGETS = tuple(
    Target(f"calibrated above {other}, {study.name}", "pixels", _gain(study.name, other), bound, " dB")
    for study, above_preset in zip(STUDIES, (1.5, 2.5), strict=True)
    for other, bound in ((PRESET, above_preset), (BEST_FIXED, 0.0), (SOL, 2.0))
)
