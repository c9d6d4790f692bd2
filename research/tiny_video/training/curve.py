"""A picture of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from psa_core.report.pictures.heat_maps import save_figure

# A point of the curve is the mean of about a hundredth of the steps.
_POINTS = 100


def draw_curve(losses: Mapping[str, Sequence[float]], file: Path) -> None:
    """Draw the losses of some trainings, by name, each in a panel of its own."""
    figure = Figure(figsize=(4.5 * len(losses), 3.2), layout="constrained")
    for panel, (name, values) in zip(np.atleast_1d(figure.subplots(1, len(losses))), losses.items(), strict=True):
        parts = np.array_split(np.asarray(values), min(_POINTS, len(values)))
        ends = np.cumsum([len(part) for part in parts])
        panel.plot(ends, [part.mean() for part in parts], color="#1f2d7a", linewidth=1.6)
        panel.set(title=name, xlabel="step", ylabel="loss", yscale="log")
        panel.grid(which="both", color="#e5e5e5", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    save_figure(figure, file, dpi=110)
