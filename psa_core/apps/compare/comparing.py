"""A comparison from start to end."""

from __future__ import annotations

import logging
import math

import numpy as np

from ...report.quality import Lpips, load_lpips, measure_quality
from ...report.videos import as_bytes, side_by_side, write_video
from ...settings.files import locked
from ..generate.errors import FailedPromptsError
from ..generate.files import make_output
from ..generate.pipeline import first_line, load_pipeline
from ..generate.same_settings import check_same
from ..generate.video_settings import GenerateSettings
from .comparison_settings import Clip, CompareSettings
from .earlier import errors_to_measure, take_over
from .files import NUMBERS, draw_density, draw_errors, video_name, write_numbers
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
    each clip, and not made again by a later run with the same settings.

    Returns:
        One line for people: how many clips there are, and where.

    Raises:
        ConfigError, BackendError: something that the user can set right; no prompt has run.
        WriteError: numbers, page or a picture cannot be written, or another run is writing into the folder.
        FailedPromptsError: something has failed.
    """
    make_output(settings.output)
    with locked(settings.output, wait=0):
        return _run(settings)


def _run(settings: CompareSettings) -> str:
    lpips = load_lpips()
    comparison = Comparison(settings, gpu_name(), lpips is not None)
    done = take_over(comparison)
    comparisons = f"{len(settings.clips)} comparison{'s' * (len(settings.clips) > 1)}"
    if done:
        print(f"{len(done)} of {comparisons} were there", flush=True)
    if len(done) < len(settings.clips) or errors_to_measure(comparison):
        _make_missing(comparison, done, lpips)
    else:
        _write(comparison)
    print(text_table(comparison))
    whole = sum(all(take.seconds is not None for take in clip.takes) for clip in comparison.clips)
    line = f"{whole} of {comparisons} in {settings.output}"
    if comparison.failures:
        raise FailedPromptsError(f"{line}; failed: {', '.join(comparison.failures)}")
    return f"{line}; open {settings.output / 'index.html'}"


def _make_missing(comparison: Comparison, done: dict[int, ClipResult], lpips: Lpips | None) -> None:
    """Make what is not ``done``, by number, and write what there is after each clip."""
    settings = comparison.settings
    pipeline = load_pipeline(settings.strictest)
    attention = dense_attention(pipeline)
    if comparison.dense_attention:
        there = {"dense_attention": comparison.dense_attention}
        check_same(settings.output, NUMBERS, there, {"dense_attention": attention})
    comparison.dense_attention = attention
    sampler = Sampler(pipeline, settings, len(done))
    _prepare(sampler, comparison)
    _write(comparison)
    for number, clip in enumerate(settings.clips, 1):
        if number not in done:
            done[number] = _compare(sampler, comparison, clip, number, lpips)
            comparison.clips = [done[each] for each in sorted(done)]
            _write(comparison)


def _write(comparison: Comparison) -> None:
    write_numbers(comparison)
    write_page(comparison)


def _prepare(sampler: Sampler, comparison: Comparison) -> None:
    """Measure errors with the first clip, and on a GPU compile what the timed runs need."""
    settings, clip = comparison.settings, comparison.settings.clips[0]
    to_measure = errors_to_measure(comparison)
    for attention in settings.attentions:
        measured = False
        if attention.preset in to_measure:
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
    name = video_name(number, clip)
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
