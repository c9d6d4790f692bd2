"""A picture of how near a video is to another, frame by frame."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ..quality import HOW_TO_READ, IDENTICAL, Quality, psnr_text
from .heat_maps import FAINT, as_image

_PSNR, _SSIM, _EQUAL = "#1f2d7a", "#1a8a6e", "#c98a1b"
# Points stay apart in a clip of up to this many frames.
_MOST_POINTS = 60
# SSIM's axis shows at least this much, so that rounding does not look like a curve.
_LEAST_SPAN = 0.01
# In a line below the plot.
_LETTERS = 130


def quality_picture(quality: Quality) -> Image.Image:
    """Draw PSNR and SSIM of every frame, their means and flicker above them; 920 pixels wide, RGB.

    Frames that equal the reference's have no PSNR; marks at the top say where they are.
    """
    figure = Figure(figsize=(9.2, 5.2), dpi=100, facecolor="white", layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_curve(above, quality.psnr, _PSNR, "PSNR (dB)")
    _draw_curve(below, quality.ssim, _SSIM, "SSIM")
    _mark_equal(above, quality.psnr)
    # A clip of equal frames has nothing that could scale these axes.
    if all(value == math.inf for value in quality.psnr):
        above.set(ylim=(0, 1), yticks=[])
    span = max(1 - min(quality.ssim), _LEAST_SPAN)
    below.set(ylim=(1 - 1.08 * span, 1 + 0.08 * span), xlim=(-0.5, len(quality.ssim) - 0.5), xlabel="frame")
    below.ticklabel_format(useOffset=False)
    below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.suptitle(quality_title(quality), fontsize=13)
    figure.supxlabel(textwrap.fill(HOW_TO_READ, _LETTERS), fontsize=9, color=FAINT)
    return as_image(figure)


def quality_title(quality: Quality) -> str:
    """The means and flicker, for people."""
    equal = quality.psnr.count(math.inf)
    note = f" ({equal} of {len(quality.psnr)} frames identical, left out)" if 0 < equal < len(quality.psnr) else ""
    flicker = "" if quality.flicker is None else f", flicker {quality.flicker:.3f}"
    return f"PSNR {psnr_text(quality.mean_psnr)}{note}, SSIM {quality.mean_ssim:.4f}{flicker}"


def _draw_curve(axis: Any, values: Sequence[float], colour: str, name: str) -> None:
    """A line over frames, with gaps where a value is infinite."""
    finite = [value if math.isfinite(value) else math.nan for value in values]
    # Also in a long clip: a lone value between gaps has no line.
    size = 4 if len(values) <= _MOST_POINTS else 1.8
    axis.plot(finite, color=colour, linewidth=1.4, marker="o", markersize=size)
    axis.set_ylabel(name)
    axis.grid(color="#e5e5e5", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _mark_equal(axis: Any, psnr: Sequence[float]) -> None:
    """Marks at the top for frames that equal the reference's."""
    equal = [frame for frame, value in enumerate(psnr) if value == math.inf]
    if equal:
        heights = [0.96] * len(equal)
        top = axis.get_xaxis_transform()
        axis.plot(equal, heights, "v", color=_EQUAL, markersize=6, transform=top, label=IDENTICAL, clip_on=False)
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9, borderpad=0, borderaxespad=0.2)
