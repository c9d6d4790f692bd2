"""One sampling run: what every host decides and records call by call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from ..attention import pyramid_sparse_attention
from ..backends import choose_backend, triton_refusal
from ..config import PSAConfig
from ..reorder import Grid
from ..report import Report


@dataclass(frozen=True)
class Place:
    """Where in the denoising and in the model an attention call stands.

    Attributes:
        step: denoising step, counted over the whole denoising.
        layer: transformer block.
        grid: (frames, height, width) of the video in tokens; None when unknown.
        text_length: text tokens in front of the video tokens.
    """

    step: int
    layer: int
    grid: Grid | None
    text_length: int = 0


@dataclass
class Run:
    """Settings and report of one sampling run.

    Attributes:
        config: settings.
        backend: ``"auto"`` leaves calls dense that the kernels cannot take; ``"triton"`` and ``"torch"`` insist.
    """

    config: PSAConfig
    backend: str = "auto"
    report: Report = field(default_factory=Report)

    def dense_reason(self, q: torch.Tensor, k: torch.Tensor, place: Place) -> str | None:
        """Why this call stays dense, in a few words for a user; None when it runs sparse.

        Args:
            q, k: ``[B, H, L, D]``.

        Raises:
            BackendError: the backend is ``"triton"`` and the kernels cannot take q; said at the first call, also in
                warm-up, rather than many steps later.
        """
        tokens, grid = q.shape[2], place.grid
        if k.shape[2] != tokens:
            return "cross-attention"
        if self.config.type == "dense":
            return "the preset is dense"
        if grid is None:
            return "video grid unknown"
        if math.prod(grid) + place.text_length != tokens:
            size = " x ".join(map(str, grid))
            return f"{tokens} tokens are not the grid {size} plus {place.text_length} of text"
        if tokens < self.config.min_tokens:
            return f"{tokens} tokens are fewer than min_tokens = {self.config.min_tokens}"
        if self.backend == "triton":
            choose_backend(self.backend, q)
        refusal = triton_refusal(q.device, q.dtype, q.shape[3]) if self.backend == "auto" else None
        if refusal is not None:
            return refusal
        if place.step < self.config.warmup_steps:
            return "warm-up"
        return None

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, place: Place) -> torch.Tensor:
        """Run one call sparse and record it. Shapes as of :func:`psa_core.pyramid_sparse_attention`."""
        out, info = pyramid_sparse_attention(
            q,
            k,
            v,
            self.config,
            grid=place.grid,
            text_length=place.text_length,
            backend=self.backend,
            return_info=True,
        )
        self.report.add_sparse(place.step, place.layer, info.density, info.levels)
        return out
