"""One sampling run: what every host decides and records call by call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch.nn.functional import scaled_dot_product_attention

from ..attention.call import pyramid_sparse_attention
from ..ops.backends import choose_backend, triton_refusal
from ..report.report import Report
from ..settings.at_step import config_at, dense_reason
from ..settings.config import PSAConfig
from ..settings.errors import ConfigError
from ..settings.radial import RadialMask
from ..settings.scenes import check_scenes
from ..settings.sizes import Grid

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Place:
    """Where in the denoising and in the model an attention call stands.

    Attributes:
        step: denoising step, counted over the whole denoising.
        layer: transformer block.
        grid: (frames, height, width) of the video in tokens; None when unknown.
        text_length: text tokens in front of the video tokens.
        steps: of the whole denoising; None when unknown.
        frames_per_token: video frames behind a frame of tokens (``RadialMask.frames_per_token``).
    """

    step: int
    layer: int
    grid: Grid | None
    text_length: int = 0
    steps: int | None = None
    frames_per_token: int = 1


@dataclass
class Run:
    """Settings and report of one sampling run.

    Attributes:
        config: settings.
        backend: ``"auto"`` leaves calls dense that the kernels cannot take; ``"triton"`` and ``"torch"`` insist.
        measure_errors: run every sparse call dense as well, and report how far its output is from that.
    """

    config: PSAConfig
    backend: str = "auto"
    report: Report = field(default_factory=Report)
    measure_errors: bool = False

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
        return dense_reason(self.config, place.step, place.steps, place.layer) or self._scenes_reason(place)

    def check_frames(self, frames: int, frames_per_token: int) -> None:
        """See, before sampling starts, that the scenes fit a clip.

        Args:
            frames: of the clip, in tokens.
            frames_per_token: as of :class:`Place`.

        Raises:
            ConfigError: they do not; the message names the number.
        """
        if self.config.type != "dense" and self.config.radial is not None:
            _check_scenes(self.config.radial, frames, frames_per_token)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, place: Place) -> torch.Tensor:
        """Run one call sparse and record it. Shapes as of :func:`psa_core.pyramid_sparse_attention`."""
        config = _config_of_call(self.config, place.step, place.steps, place.frames_per_token)
        with self.report.time_sparse(q.device):
            out, info = pyramid_sparse_attention(
                q,
                k,
                v,
                config,
                grid=place.grid,
                text_length=place.text_length,
                backend=self.backend,
                return_info=True,
            )
        error = _relative_error(out, q, k, v) if self.measure_errors else None
        self.report.add_sparse(place.step, place.layer, info.level_shares, info.levels, error)
        return out

    def _scenes_reason(self, place: Place) -> str | None:
        """Scenes are places in the whole clip, and a part of it does not say which part it is."""
        assert place.grid is not None
        if self.config.radial is None or _scenes_fit(self.config.radial, place.grid[0], place.frames_per_token):
            return None
        return f"the scenes do not fit a window of {place.grid[0]} token frames"


def _relative_error(out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Norm of the difference to dense attention by the norm of that, 0-dim on the device, summed in float32."""
    # In the model's precision: next to what a sparse call leaves out its rounding is nothing, and float32 would take
    # a GPU many times as long.
    dense = scaled_dot_product_attention(q, k, v)
    norm = torch.linalg.vector_norm(dense, dtype=torch.float32)
    return torch.linalg.vector_norm(out - dense, dtype=torch.float32) / norm.clamp_min(_TINY)


def _check_scenes(radial: RadialMask, frames: int, frames_per_token: int) -> None:
    if radial.scene_boundaries:
        check_scenes(radial.scene_boundaries, radial.scene_adjacency, frames, frames_per_token)


# Asked on every attention call, as is the next.
@lru_cache(maxsize=64)
def _scenes_fit(radial: RadialMask, frames: int, frames_per_token: int) -> bool:
    try:
        _check_scenes(radial, frames, frames_per_token)
    except ConfigError:
        return False
    return True


@lru_cache(maxsize=512)
def _config_of_call(config: PSAConfig, step: int, steps: int | None, frames_per_token: int) -> PSAConfig:
    config = config_at(config, step, steps)
    if config.radial is None:
        return config
    return config.replace(radial=config.radial.replace(frames_per_token=frames_per_token))
