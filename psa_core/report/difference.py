"""Two videos as tensors, frame by frame: how near one is to the other, and a video of what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..settings.errors import ConfigError
from .quality import SSIM_WINDOW, Quality, flicker, measure_quality

_COLOURS = 3


@dataclass(frozen=True)
class Difference:
    """What a video is against its reference.

    Attributes:
        quality: PSNR, SSIM and flicker.
        video: ``[frames, height, width, 3]``, float32 from 0 to 1: how far each colour of a pixel is from the
            reference's, amplified.
    """

    quality: Quality
    video: torch.Tensor


def compare_videos(
    video: torch.Tensor, reference: torch.Tensor, gain: float, on_frame: Callable[[], None] = lambda: None
) -> Difference:
    """Compare two videos of one size.

    Args:
        video, reference: ``[frames, height, width, 3]``, or with transparency as a fourth colour, which is left out.
            Values are clipped to 0 and 1, as they are where a video is shown or saved.
        gain: factor of the difference, clipped to 1.
        on_frame: called after each frame.

    Raises:
        ConfigError: the videos differ in length or size, are smaller than SSIM can take, or hold what is no number.
    """
    _check(video, reference)
    differences = torch.empty(*reference.shape[:3], _COLOURS)
    qualities = []
    for i in range(len(reference)):
        frame, wanted = _pixels(video, i, "video"), _pixels(reference, i, "reference")
        qualities.append(measure_quality(frame[None], wanted[None]))
        differences[i] = torch.from_numpy(np.abs(frame - wanted) * np.float32(gain)).clamp(max=1)
        on_frame()
    psnr, ssim = ([value for part in qualities for value in getattr(part, name)] for name in ("psnr", "ssim"))
    changes = flicker(_frames(video, "video"), _frames(reference, "reference"))
    return Difference(Quality(tuple(psnr), tuple(ssim), lpips=None, flicker=changes), differences)


def _check(video: torch.Tensor, reference: torch.Tensor) -> None:
    for name, given in (("video", video), ("reference", reference)):
        if given.ndim != 4 or given.shape[-1] not in (_COLOURS, _COLOURS + 1) or not len(given):
            raise ConfigError(name, list(given.shape), "must be [frames, height, width, 3 or 4] with a frame or more")
    if len(video) != len(reference):
        raise ConfigError(
            "video",
            _count(video),
            f"the reference has {_count(reference)}: make both with the same length, or cut the longer one",
        )
    if video.shape[1:3] != reference.shape[1:3]:
        raise ConfigError(
            "video",
            _size(video),
            f"the reference has {_size(reference)} (width x height): make both in the same size, or resize one",
        )
    if min(video.shape[1:3]) < SSIM_WINDOW:
        allowed = f"SSIM looks at windows of {SSIM_WINDOW} x {SSIM_WINDOW} pixels: frames must be as large or larger"
        raise ConfigError("video", _size(video), allowed)


def _frames(frames: torch.Tensor, name: str) -> Iterator[np.ndarray]:
    """Its frames, one after another."""
    return (_pixels(frames, i, name) for i in range(len(frames)))


def _pixels(frames: torch.Tensor, i: int, name: str) -> np.ndarray:
    """One frame ``[height, width, 3]``, float32 from 0 to 1."""
    frame = frames[i, ..., :_COLOURS].float().cpu()
    if not frame.isfinite().all():
        raise ConfigError(name, f"frame {i}", "holds pixels that are not numbers: what made them has failed")
    pixels: np.ndarray = frame.clamp(0, 1).numpy()
    return pixels


def _count(video: torch.Tensor) -> str:
    return f"{len(video)} frame{'s' * (len(video) > 1)}"


def _size(video: torch.Tensor) -> str:
    return f"{video.shape[2]} x {video.shape[1]}"
