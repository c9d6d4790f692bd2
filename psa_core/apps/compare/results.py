"""What a comparison has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from ...report.calls import AttentionError
from ...report.quality import Quality, mean_psnr
from ..generate.sample import Made
from .comparison_settings import Clip, CompareSettings


@dataclass(frozen=True)
class Take:
    """One video of a clip, or why there is none.

    Attributes:
        preset: its name, or ``"dense"``.
        line: what the attention did, for people; of a video that failed, why.
        seconds: from text to pixels; None for a video that failed.
        density: of the sparse calls; None without any.
        sparse_share: share of the self-attention calls that ran sparse.
        quality: against the dense video; None for that one.
    """

    preset: str
    line: str
    seconds: float | None = None
    density: float | None = None
    sparse_share: float = 0.0
    quality: Quality | None = None

    @classmethod
    def of(cls, preset: str, made: Made, quality: Quality | None = None) -> Take:
        """Of a video that was made."""
        report = made.report
        if report is None:
            return cls(preset, made.line, made.seconds, quality=quality)
        calls = report.sparse_count + report.dense_count
        share = report.sparse_count / calls if calls else 0.0
        return cls(preset, made.line, made.seconds, report.density(), share, quality)


@dataclass
class ClipResult:
    """One clip.

    Attributes:
        takes: dense first.
        video: name of the file that shows all takes side by side; None when it could not be written.
    """

    clip: Clip
    takes: list[Take] = field(default_factory=list)
    video: str | None = None


@dataclass
class Comparison:
    """All that is known so far.

    Attributes:
        gpu: its name; None on a CPU, whose times say nothing.
        with_lpips: whether LPIPS is measured.
        dense_attention: what computes it; empty until a pipeline is there.
        clips: those that are done.
        errors: of the first clip, by preset.
        pictures: names of files, by what they show and by preset.
        failures: what has failed and why, for people.
    """

    settings: CompareSettings
    gpu: str | None
    with_lpips: bool
    dense_attention: str = ""
    clips: list[ClipResult] = field(default_factory=list)
    errors: dict[str, list[AttentionError]] = field(default_factory=dict)
    pictures: dict[str, dict[str, str]] = field(default_factory=lambda: {"errors": {}, "density": {}})
    failures: list[str] = field(default_factory=list)


class Summary(NamedTuple):
    """One attention over all clips; None where there is nothing to say.

    Attributes:
        preset, density, sparse_share, seconds: means of a :class:`Take`'s.
        speed_up: seconds of dense attention by these, for the clips that have both; None on a CPU.
        psnr, ssim, flicker, lpips: means over the clips; the PSNR over those that differ from the dense video.
        error: mean relative error of attention's outputs.
        why_dense: what the attention did where no call of a clip ran sparse.
    """

    preset: str
    density: float | None
    sparse_share: float | None
    seconds: float | None
    speed_up: float | None
    psnr: float | None
    ssim: float | None
    flicker: float | None
    lpips: float | None
    error: float | None
    why_dense: str | None


def summaries(comparison: Comparison) -> list[Summary]:
    """A line for every attention, dense first."""
    return [_summary(comparison, settings.preset) for settings in comparison.settings.attentions]


def _summary(comparison: Comparison, preset: str) -> Summary:
    pairs = [
        (clip.takes[0], take)
        for clip in comparison.clips
        for take in clip.takes
        if take.preset == preset and take.seconds is not None
    ]
    takes = [take for _, take in pairs]
    qualities = [take.quality for take in takes if take.quality is not None]
    errors = [error.error for error in comparison.errors.get(preset, ())]
    dense = preset == comparison.settings.dense.preset
    return Summary(
        preset=preset,
        density=1.0 if dense else _mean([take.density for take in takes]),
        sparse_share=None if dense else _mean([take.sparse_share for take in takes]),
        seconds=_mean([take.seconds for take in takes]),
        speed_up=None if comparison.gpu is None else _ratio(pairs),
        psnr=mean_psnr([quality.mean_psnr for quality in qualities]) if qualities else None,
        ssim=_mean([quality.mean_ssim for quality in qualities]),
        flicker=_mean([quality.flicker for quality in qualities]),
        lpips=_mean([quality.mean_lpips for quality in qualities]),
        error=_mean(errors),
        why_dense=None if dense else next((take.line for take in takes if not take.sparse_share), None),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _ratio(pairs: Sequence[tuple[Take, Take]]) -> float | None:
    """Time of dense attention by that of another."""
    other = sum(take.seconds or 0 for _, take in pairs)
    return sum(dense.seconds or 0 for dense, _ in pairs) / other if other else None
