"""The files of a comparison: its folder, the numbers as JSON, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from ...report.calls import AttentionError
from ...report.pictures.heat_maps import density_picture, errors_picture
from ...report.quality import psnr_as_plain
from ...report.report import Report
from ...settings.files import file_names, write_json
from ...settings.preset_schema import config_to_schema
from ..generate.files import settings_document, slug, versions
from .comparison_settings import Clip
from .results import ClipResult, Comparison, summaries

NUMBERS = "compare.json"


def write_numbers(comparison: Comparison) -> None:
    """Write all that is known as ``compare.json``."""
    write_json(comparison.settings.output / NUMBERS, _document(comparison), allow_nan=False)


def video_name(number: int, clip: Clip) -> str:
    """Name of the file that shows a clip, counted from 1."""
    return f"{number:02d}-{slug(clip.prompt)}-seed-{clip.seed}.mp4"


def draw_errors(comparison: Comparison) -> None:
    """Draw the errors of each preset, with one scale of colours for all."""
    measured = {preset: errors for preset, errors in comparison.errors.items() if errors}
    # A cell is a mean, so none passes the highest of the calls.
    most = max((error.error for errors in measured.values() for error in errors), default=0.0)
    for preset, errors in measured.items():
        name = _picture_name(comparison, "errors", preset)
        errors_picture(errors, comparison.settings.output / name, most=most)
        comparison.pictures["errors"][preset] = name


def draw_density(comparison: Comparison, preset: str, report: Report) -> None:
    """Draw the density of a preset, once, where any call ran sparse."""
    if preset in comparison.pictures["density"] or not report.sparse_count:
        return
    name = _picture_name(comparison, "density", preset)
    density_picture(report, comparison.settings.output / name)
    comparison.pictures["density"][preset] = name


def _picture_name(comparison: Comparison, what: str, preset: str) -> str:
    return f"{what}-{file_names(each.preset for each in comparison.settings.presets)[preset]}.png"


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """What two runs must have in common for their numbers to stand side by side, for JSON."""
    settings = comparison.settings
    return {
        "settings": {
            **settings_document(settings.dense),
            "prompts": list(settings.dense.prompts),
            "seeds": list(settings.seeds),
            "presets": {preset.preset: config_to_schema(preset.config) for preset in settings.presets},
            "measure_errors": settings.measure_errors,
        },
        "versions": versions(),
        "gpu": comparison.gpu,
        "with_lpips": comparison.with_lpips,
    }


def _document(comparison: Comparison) -> dict[str, Any]:
    return {
        **comparison_document(comparison),
        "dense_attention": comparison.dense_attention,
        "summary": [
            {**row._asdict(), "psnr": None if row.psnr is None else psnr_as_plain(row.psnr)}
            for row in summaries(comparison)
        ],
        "clips": [_clip(clip) for clip in comparison.clips],
        "attention_errors": {preset: _errors(errors) for preset, errors in comparison.errors.items()},
        "pictures": comparison.pictures,
        "failures": comparison.failures,
    }


def _clip(result: ClipResult) -> dict[str, Any]:
    takes = [
        {
            "preset": take.preset,
            "report_line": take.line,
            "seconds": take.seconds,
            "density": take.density,
            "sparse_share": take.sparse_share,
            "quality": None if take.quality is None else take.quality.as_dict(),
        }
        for take in result.takes
    ]
    return {"prompt": result.clip.prompt, "seed": result.clip.seed, "video": result.video, "takes": takes}


def _errors(errors: Sequence[AttentionError]) -> dict[str, Any]:
    return {
        "mean": fmean([error.error for error in errors]) if errors else None,
        "by_step": _means(errors, lambda error: error.step),
        "by_layer": _means(errors, lambda error: error.layer),
        "calls": [error._asdict() for error in errors],
    }


def _means(errors: Sequence[AttentionError], key: Callable[[AttentionError], int]) -> dict[int, float]:
    groups: dict[int, list[float]] = {}
    for error in errors:
        groups.setdefault(key(error), []).append(error.error)
    return {number: fmean(group) for number, group in sorted(groups.items())}
