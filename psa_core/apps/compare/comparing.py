"""A comparison from start to end."""

from __future__ import annotations

import logging
import math

import numpy as np

from ...report.quality import Lpips, load_lpips, measure_quality
from ...report.videos import as_bytes, side_by_side, write_video
from ..generate.errors import FailedPromptsError
from ..generate.files import slug
from ..generate.pipeline import first_line, load_pipeline
from ..generate.video_settings import GenerateSettings
from .comparison_settings import Clip, CompareSettings
from .files import draw_density, draw_errors, take_folder, write_json
from .machine import dense_attention, gpu_name
from .page import write_page
from .results import ClipResult, Comparison, Take
from .sampler import Sampler
from .table import text_table

log = logging.getLogger(__name__)


def run_compare(settings: CompareSettings) -> str:
    """Show every clip with dense attention and with each preset, measure, and write videos, pictures, JSON and a page.

    Times are of runs that do nothing else: errors of attention are measured before, in a run of their own of each
    preset. On a GPU that run also compiles the kernels, and what has none (dense attention; every preset, where errors
    are left out) runs two steps first. What fails is logged, and the rest goes on; what there is, is written after
    each clip.

    Returns:
        One line for people: how many clips there are, and where.

    Raises:
        ConfigError, BackendError: something that the user can set right; no prompt has run.
        FailedPromptsError: something has failed.
    """
    take_folder(settings.output)
    lpips = load_lpips()
    pipeline = load_pipeline(settings.strictest)
    comparison = Comparison(settings, gpu_name(), dense_attention(pipeline), lpips is not None)
    sampler = Sampler(pipeline, settings)
    _prepare(sampler, comparison)
    for number, clip in enumerate(settings.clips, 1):
        comparison.clips.append(_compare(sampler, comparison, clip, number, lpips))
        write_json(comparison)
        write_page(comparison)
    print(text_table(comparison))
    whole = sum(all(take.seconds is not None for take in clip.takes) for clip in comparison.clips)
    line = f"{whole} of {len(settings.clips)} comparison{'s' * (len(settings.clips) > 1)} in {settings.output}"
    if comparison.failures:
        raise FailedPromptsError(f"{line}; failed: {', '.join(comparison.failures)}")
    return f"{line}; open {settings.output / 'index.html'}"


def _prepare(sampler: Sampler, comparison: Comparison) -> None:
    """Measure errors with the first clip, and on a GPU compile what the timed runs need."""
    settings, clip = comparison.settings, comparison.settings.clips[0]
    for attention in settings.attentions:
        measured = False
        if settings.measure_errors and attention.config.type != "dense":
            measured = _measure_errors(sampler, comparison, attention, clip)
        if comparison.gpu is not None and not measured:
            try:
                sampler.warm_up(attention, clip)
            except Exception as error:
                # The timed run meets it again, and says so.
                log.debug("warming up %s: %s", attention.preset, first_line(error))
    draw_errors(comparison)


def _measure_errors(sampler: Sampler, comparison: Comparison, attention: GenerateSettings, clip: Clip) -> bool:
    """Whether it went well."""
    try:
        report = sampler.measured(attention, clip).report
        errors = report.attention_errors() if report is not None else []
        if not all(math.isfinite(error.error) for error in errors):
            raise ValueError("attention gives what are not numbers")
    except Exception as error:
        _fail(comparison, f"errors of {attention.preset}", error)
        return False
    comparison.errors[attention.preset] = errors
    return True


def _compare(sampler: Sampler, comparison: Comparison, clip: Clip, number: int, lpips: Lpips | None) -> ClipResult:
    """Make and measure all videos of a clip, and write them side by side."""
    result = ClipResult(clip)
    videos: dict[str, np.ndarray] = {}
    reference: np.ndarray | None = None
    for attention in comparison.settings.attentions:
        name = attention.preset
        try:
            made = sampler.video(attention, clip)
            quality = None if reference is None else measure_quality(made.frames, reference, lpips)
        except Exception as error:
            result.takes.append(Take(name, f"failed: {first_line(error)}"))
            _fail(comparison, f"{number} with {name}", error)
            if reference is None:
                # Nothing to compare with.
                return result
            continue
        if reference is None:
            reference = made.frames
        take = Take.of(name, made, quality)
        result.takes.append(take)
        if made.report is not None:
            draw_density(comparison, name, made.report)
        # As bytes, a quarter of the memory.
        videos[name if take.density is None else f"{name}, density {take.density:.2f}"] = as_bytes(made.frames)
    result.video = _write_video(comparison, clip, number, videos)
    return result


def _write_video(comparison: Comparison, clip: Clip, number: int, videos: dict[str, np.ndarray]) -> str | None:
    """Name of the file; None when it cannot be written."""
    settings = comparison.settings
    name = f"{number:02d}-{slug(clip.prompt)}-seed-{clip.seed}.mp4"
    try:
        frames = side_by_side(list(videos.values()), list(videos))
        write_video(settings.output / name, frames, settings.dense.facts.frames_per_second)
    except Exception as error:
        _fail(comparison, f"the video of {number}", error)
        return None
    return name


def _fail(comparison: Comparison, what: str, error: Exception) -> None:
    comparison.failures.append(f"{what} ({first_line(error)})")
    log.warning("%s failed: %s", what, first_line(error))
    log.debug("%s", what, exc_info=True)
