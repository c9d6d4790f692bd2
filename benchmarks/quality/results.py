"""What the quality bench finds, the file that keeps it, and what counts as a drop."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psa_core.settings.errors import ConfigError
from psa_core.settings.files import write_json

UNITS = {
    "density": "share of dense attention's FLOPs in the sparse calls, mean",
    "psnr": "dB against the dense clip, of the middle of its first frame",
    "ssim": "against the dense clip, of the middle of its first frame; 1 for equal pictures",
    "latents_error": "norm of the difference of all final latents to the dense ones, by the norm of those",
}

# The noise to expect comes from floats added in another order, as other numbers of threads and other CPUs do it. Seen
# with one thread and two, and with starting noise changed by a millionth: 0.000004 dB, 0.0000003 of SSIM, 0.000001 of
# the error of latents, nothing of the density. The margins leave room for a block here and there that changes its rank.
PSNR_MARGIN = 0.1
SSIM_MARGIN = 0.001
# A share of the baseline's.
ERROR_MARGIN = 0.02
DENSITY_MARGIN = 0.0005


@dataclass(frozen=True)
class QualityRow:
    """One case; :data:`UNITS` says what the numbers are.

    Attributes:
        name: of the case.
        presets: the bundled presets that it stands for.
    """

    name: str
    presets: tuple[str, ...]
    density: float
    psnr: float
    ssim: float
    latents_error: float


def save_rows(rows: Sequence[QualityRow], machine: str, file: Path) -> None:
    """Write JSON.

    Args:
        machine: what the numbers come from, for people.
    """
    document = {"machine": machine, "units": UNITS, "rows": [_rounded(row) for row in rows]}
    write_json(file, document)


def load_rows(file: Path) -> list[QualityRow]:
    """Read what :func:`save_rows` has written.

    Raises:
        ConfigError: the file holds something else.
        OSError: there is no such file.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        return [QualityRow(**{**row, "presets": tuple(row["presets"])}) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        allowed = f"must be a JSON file that psa bench --quality has written ({error})"
        raise ConfigError("results", str(file), allowed) from None


def drops(rows: Sequence[QualityRow], baseline: Sequence[QualityRow]) -> list[str]:
    """What is worse than in the baseline beyond noise, has another density or stands in one alone; a line each."""
    known = {row.name: row for row in baseline}
    found = [f"{name}: in the baseline alone" for name in known.keys() - {row.name for row in rows}]
    for row in rows:
        before = known.get(row.name)
        if before is None:
            found.append(f"{row.name}: not in the baseline")
            continue
        # Written so that what is not a number is a drop as well.
        if not row.psnr >= before.psnr - PSNR_MARGIN:
            found.append(f"{row.name}: PSNR {row.psnr:.2f} dB, before {before.psnr:.2f}")
        if not row.ssim >= before.ssim - SSIM_MARGIN:
            found.append(f"{row.name}: SSIM {row.ssim:.4f}, before {before.ssim:.4f}")
        if not row.latents_error <= before.latents_error * (1 + ERROR_MARGIN):
            found.append(f"{row.name}: error of latents {row.latents_error:.3f}, before {before.latents_error:.3f}")
        if not abs(row.density - before.density) <= DENSITY_MARGIN:
            found.append(f"{row.name}: density {row.density:.4f}, before {before.density:.4f}")
    return found


def quality_table(rows: Sequence[QualityRow]) -> str:
    """One line a case, in Markdown."""
    lines = ["| presets | density | PSNR | SSIM | error of latents |", "|---|---|---|---|---|"]
    for row in rows:
        numbers = f"{row.density:.3f} | {row.psnr:.2f} dB | {row.ssim:.4f} | {row.latents_error:.3f}"
        lines.append(f"| {', '.join(row.presets)} | {numbers} |")
    return "\n".join(lines)


def _rounded(row: QualityRow) -> dict[str, object]:
    fields = dataclasses.asdict(row)
    return {key: round(value, 5) if isinstance(value, float) else value for key, value in fields.items()}
