"""The files of a comparison: its folder, the numbers as JSON, and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ...report.pictures.heat_maps import density_picture, errors_picture
from ...report.quality import psnr_as_plain
from ...report.report import AttentionError, Report
from ...settings.errors import ConfigError
from ...settings.presets import config_to_schema
from ..generate.files import make_output, settings_document, versions
from .results import ClipResult, Comparison, summaries

NUMBERS = "compare.json"


def take_folder(folder: Path) -> None:
    """Make the output folder.

    Raises:
        ConfigError: it cannot be written, or holds another comparison.
    """
    if (folder / NUMBERS).exists():
        raise ConfigError("--output", str(folder), "holds a comparison, which is not overwritten; give another folder")
    make_output(folder)


def write_json(comparison: Comparison) -> None:
    """Write all that is known as ``compare.json``."""
    text = json.dumps(_document(comparison), indent=1, ensure_ascii=False, allow_nan=False)
    (comparison.settings.output / NUMBERS).write_text(text + "\n", encoding="utf-8")


def draw_errors(comparison: Comparison) -> None:
    """Draw the errors of each preset, with one scale of colours for all."""
    measured = {preset: errors for preset, errors in comparison.errors.items() if errors}
    # A cell is a mean, so none passes the highest of the calls.
    most = max((error.error for errors in measured.values() for error in errors), default=0.0)
    for preset, errors in measured.items():
        name = f"errors-{preset}.png"
        errors_picture(errors, comparison.settings.output / name, most=most)
        comparison.pictures["errors"][preset] = name


def draw_density(comparison: Comparison, preset: str, report: Report) -> None:
    """Draw the density of a preset, once, where any call ran sparse."""
    if preset in comparison.pictures["density"] or not report.sparse_count:
        return
    name = f"density-{preset}.png"
    density_picture(report, comparison.settings.output / name)
    comparison.pictures["density"][preset] = name


def _document(comparison: Comparison) -> dict[str, Any]:
    settings = comparison.settings
    return {
        "settings": {
            **settings_document(settings.dense),
            "prompts": list(settings.dense.prompts),
            "seeds": list(settings.seeds),
            "presets": {preset.preset: config_to_schema(preset.config) for preset in settings.presets},
        },
        "versions": versions(),
        "gpu": comparison.gpu,
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
