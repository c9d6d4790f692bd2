"""What the axes of a run's picture have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from .heat_maps import FAINT

# Of letters, in points.
SIZE = 9


def round_ticks(count: int) -> np.ndarray:
    """Round numbers from 0 on, below ``count`` and few enough to be read."""
    return np.arange(0, count, next(step for step in (1, 2, 5, 10, 20, 50, count) if count <= 14 * step))


def heading(axis: Any, text: str) -> None:
    """Write what an axis shows above its left end."""
    axis.set_title(text, fontsize=SIZE + 0.5, color=FAINT, loc="left")
