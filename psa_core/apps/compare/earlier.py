"""What an earlier run of the same comparison has left in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...report.calls import AttentionError
from ...report.quality import Quality
from ...settings.errors import ConfigError
from ..generate.same_settings import check_same
from .comparison_settings import CompareSettings
from .files import NUMBERS, comparison_document, video_name
from .results import ClipResult, Comparison, Take


def take_over(comparison: Comparison) -> dict[int, ClipResult]:
    """Put what is finished into a comparison: clips with every video, errors of attention, and pictures.

    Returns:
        The clips by their number, from 1.

    Raises:
        ConfigError: the folder holds a comparison with other settings, or one that cannot be read.
    """
    folder = comparison.settings.output
    file = folder / NUMBERS
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        check_same(folder, NUMBERS, document, comparison_document(comparison))
        done = _clips(comparison.settings, document["clips"])
        comparison.errors = {
            preset: [AttentionError(**call) for call in found["calls"]]
            for preset, found in document["attention_errors"].items()
        }
        for what, pictures in comparison.pictures.items():
            there = document["pictures"][what].items()
            pictures.update((preset, name) for preset, name in there if (folder / name).exists())
        comparison.dense_attention = document["dense_attention"]
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        what = f"holds a {NUMBERS} that cannot be read; give another folder"
        raise ConfigError("--output", str(folder), what) from None
    comparison.clips = [done[number] for number in sorted(done)]
    return done


def errors_to_measure(comparison: Comparison) -> set[str]:
    """The presets whose errors are asked for and not known."""
    settings = comparison.settings
    sparse = {preset.preset for preset in settings.presets if preset.config.type != "dense"}
    return sparse - comparison.errors.keys() if settings.measure_errors else set()


def _clips(settings: CompareSettings, results: list[Mapping[str, Any]]) -> dict[int, ClipResult]:
    by_video = {result["video"]: result for result in results}
    done: dict[int, ClipResult] = {}
    for number, clip in enumerate(settings.clips, 1):
        name = video_name(number, clip)
        result = by_video.get(name)
        if result is None or not (settings.output / name).exists():
            continue
        takes = [_take(take) for take in result["takes"]]
        if len(takes) == len(settings.attentions) and all(take.seconds is not None for take in takes):
            done[number] = ClipResult(clip, takes, name)
    return done


def _take(take: Mapping[str, Any]) -> Take:
    quality = None if take["quality"] is None else Quality.from_dict(take["quality"])
    return Take(take["preset"], take["report_line"], take["seconds"], take["density"], take["sparse_share"], quality)
