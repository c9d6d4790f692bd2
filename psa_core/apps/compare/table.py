"""A comparison's numbers as texts: cells for the page, and a table for the shell."""

from __future__ import annotations

from collections.abc import Sequence

from ...report import quality
from .results import Comparison, Summary, summaries

_NONE = "-"


def columns(comparison: Comparison) -> list[str]:
    """Heads of the table; LPIPS and errors of attention where they are measured."""
    head = ["attention", "density", "calls sparse", "speed-up", "PSNR", "SSIM", "flicker"]
    head += ["LPIPS"] * comparison.with_lpips
    return head + ["attention error"] * bool(comparison.errors)


def rows(comparison: Comparison) -> list[list[str]]:
    """A row for every attention, dense first."""
    return [_cells(comparison, summary) for summary in summaries(comparison)]


def notes(comparison: Comparison) -> list[str]:
    """What one should know to read the table."""
    lines = [f"{row.preset}: {row.why_dense}" for row in summaries(comparison) if row.why_dense is not None]
    if comparison.gpu is None:
        lines.append("No speed-up is shown: times on a CPU say nothing of the kernels, which need a GPU.")
    else:
        lines.append("The speed-up is that of whole videos, from text to pixels.")
    lines.append(
        "Density is that of the sparse calls. PSNR, SSIM and flicker are against the dense video of the same seed."
    )
    lines.append(quality.HOW_TO_READ)
    if not comparison.with_lpips:
        lines.append("LPIPS is left out: it needs the package lpips.")
    if comparison.errors:
        lines.append(
            "The attention error is the relative error of the outputs of sparse calls, each against dense attention on "
            "the same input; it is measured for the first prompt and seed only."
        )
    return lines


def text_table(comparison: Comparison) -> str:
    """The table and its notes in plain text."""
    lines = [columns(comparison), *rows(comparison)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join([*(_line(cells, widths) for cells in lines), "", *notes(comparison)])


def psnr_text(value: float | None) -> str:
    """A PSNR, or a dash."""
    return _NONE if value is None else quality.psnr_text(value)


def number_text(value: float | None, form: str) -> str:
    """A number as ``form`` has it, or a dash."""
    return _NONE if value is None else form.format(value)


def _cells(comparison: Comparison, row: Summary) -> list[str]:
    cells = [
        row.preset,
        number_text(row.density, "{:.3f}"),
        number_text(row.sparse_share, "{:.0%}"),
        number_text(row.speed_up, "{:.2f}x"),
        psnr_text(row.psnr),
        number_text(row.ssim, "{:.4f}"),
        number_text(row.flicker, "{:.3f}"),
    ]
    cells += [number_text(row.lpips, "{:.4f}")] * comparison.with_lpips
    return cells + [number_text(row.error, "{:.3g}")] * bool(comparison.errors)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The name on the left, numbers on the right."""
    name, *numbers = zip(cells, widths, strict=True)
    return "  ".join([name[0].ljust(name[1]), *(cell.rjust(width) for cell, width in numbers)])
