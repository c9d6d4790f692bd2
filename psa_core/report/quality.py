"""How near a video is to another: PSNR, SSIM, flicker and LPIPS. Needs scikit-image, which the core does not."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

log = logging.getLogger(__name__)

# Two frames [height, width, 3], from 0 to 1 -> their distance.
Lpips = Callable[[np.ndarray, np.ndarray], float]

IDENTICAL = "identical"
# SSIM looks at windows of this many pixels a side.
SSIM_WINDOW = 7
# From so many dB on a difference is hard to see, and under so many a video shows something else than its reference.
HARD_TO_SEE, ANOTHER_VIDEO = 30, 20
HOW_TO_READ = (
    f"From {HARD_TO_SEE} dB of PSNR on a difference is hard to see; under {ANOTHER_VIDEO} dB it is another video, "
    "which may be as good. Flicker is the error of the changes from frame to frame: 0 is none, 1 that of a still "
    "picture."
)


@dataclass(frozen=True)
class Quality:
    """What a video is against its reference, frame by frame.

    Attributes:
        psnr: in dB; infinite for a frame that equals the reference's.
        ssim: 1 for equal frames.
        lpips: 0 for equal frames; None where it was not measured.
        flicker: of the whole video, as in :func:`flicker`.
    """

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    lpips: tuple[float, ...] | None
    flicker: float | None = None

    @property
    def mean_psnr(self) -> float:
        """Mean over the frames that differ from the reference; infinite when none does."""
        return mean_psnr(self.psnr)

    @property
    def mean_ssim(self) -> float:
        return fmean(self.ssim)

    @property
    def mean_lpips(self) -> float | None:
        return None if self.lpips is None else fmean(self.lpips)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which knows no infinity: there the PSNR of what is equal is the text ``"identical"``."""
        return {
            "psnr": psnr_as_plain(self.mean_psnr),
            "ssim": self.mean_ssim,
            "flicker": self.flicker,
            "lpips": self.mean_lpips,
            "frames": {
                "psnr": [psnr_as_plain(value) for value in self.psnr],
                "ssim": list(self.ssim),
                "lpips": None if self.lpips is None else list(self.lpips),
            },
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Quality:
        """Read what :meth:`as_dict` has made."""
        frames = document["frames"]
        return cls(
            psnr=tuple(math.inf if value == IDENTICAL else float(value) for value in frames["psnr"]),
            ssim=tuple(frames["ssim"]),
            lpips=None if frames["lpips"] is None else tuple(frames["lpips"]),
            flicker=document.get("flicker"),
        )


def measure_quality(video: np.ndarray, reference: np.ndarray, lpips: Lpips | None = None) -> Quality:
    """Measure a video against its reference.

    Args:
        video, reference: ``[frames, height, width, 3]``, from 0 to 1, 7 pixels or more in height and width.
        lpips: from :func:`load_lpips`; None leaves LPIPS out.

    Raises:
        ValueError: the videos differ in shape, or are no videos of that kind.
    """
    if video.shape != reference.shape:
        raise ValueError(f"videos of one shape can be compared, not {video.shape} and {reference.shape}")
    if video.ndim != 4 or not len(video) or video.shape[-1] != 3 or min(video.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"must be [frames, height, width, 3] with {SSIM_WINDOW} pixels a side or more: {video.shape}")
    pairs = list(zip(video, reference, strict=True))
    return Quality(
        psnr=tuple(_psnr(frame, wanted) for frame, wanted in pairs),
        ssim=tuple(float(structural_similarity(wanted, x, channel_axis=-1, data_range=1)) for x, wanted in pairs),
        lpips=None if lpips is None else tuple(lpips(frame, wanted) for frame, wanted in pairs),
        flicker=flicker(video, reference),
    )


def flicker(video: Iterable[np.ndarray], reference: Iterable[np.ndarray]) -> float | None:
    """How far the changes from frame to frame are from those of a reference.

    Norm of the difference of the two videos' changes, by the norm of the reference's changes: 0 for the same changes,
    also in a video that is brighter throughout, and 1 for a still one. PSNR of frames misses pulsing, as it does not
    tell an error that stays from one that comes and goes.

    Args:
        video, reference: as many frames ``[height, width, 3]``.

    Returns:
        None where the reference does not change, as a single frame does not.
    """
    frames = ((x.astype(np.float32), wanted.astype(np.float32)) for x, wanted in zip(video, reference, strict=True))
    wrong = right = 0.0
    for (before, wanted_before), (after, wanted) in pairwise(frames):
        change = wanted - wanted_before
        wrong += float(np.square(after - before - change).sum(dtype=np.float64))
        right += float(np.square(change).sum(dtype=np.float64))
    return math.sqrt(wrong / right) if right else None


def load_lpips() -> Lpips | None:
    """LPIPS with AlexNet on the CPU; None where the package ``lpips`` is not installed.

    The package downloads AlexNet's weights once. When it cannot, or does not load, a warning says so, and it is None.
    """
    if importlib.util.find_spec("lpips") is None:
        return None
    try:
        import lpips

        network = lpips.LPIPS(net="alex", verbose=False).eval()
    # Torchvision, which it needs, raises a RuntimeError where it does not fit torch.
    except (ImportError, OSError, RuntimeError) as error:
        log.warning("no LPIPS: it cannot be loaded (%s)", error)
        return None

    def distance(frame: np.ndarray, reference: np.ndarray) -> float:
        with torch.no_grad():
            return float(network(_for_lpips(frame), _for_lpips(reference)))

    return distance


def mean_psnr(values: Sequence[float]) -> float:
    """Mean of those that are finite: one equal frame would make the mean of all infinite, and say nothing of the rest.

    Infinite when none is finite.
    """
    finite = [value for value in values if value != math.inf]
    return fmean(finite) if finite else math.inf


def psnr_as_plain(value: float) -> float | str:
    """A PSNR for JSON."""
    return IDENTICAL if value == math.inf else value


def psnr_text(value: float) -> str:
    """A PSNR for people."""
    return IDENTICAL if value == math.inf else f"{value:.2f} dB"


def _psnr(frame: np.ndarray, reference: np.ndarray) -> float:
    if np.array_equal(frame, reference):
        return math.inf
    return float(peak_signal_noise_ratio(reference, frame, data_range=1))


def _for_lpips(frame: np.ndarray) -> torch.Tensor:
    """``[1, 3, height, width]``, from -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(frame)).float().permute(2, 0, 1)[None] * 2 - 1
