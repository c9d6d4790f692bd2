"""The videos of a comparison, from one pipeline."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..generate.sample import Made, sample
from ..generate.video_settings import GenerateSettings
from .comparison_settings import Clip, CompareSettings, for_warm_up

_WARM_UP_STEPS = 2


class Sampler:
    """Makes videos, and counts them on the progress bar, after those of clips that are there."""

    def __init__(self, pipeline: Any, settings: CompareSettings, clips_there: int = 0) -> None:
        self._pipeline = pipeline
        self._total = len(settings.clips) * len(settings.attentions)
        self._done = clips_there * len(settings.attentions)

    def video(self, settings: GenerateSettings, clip: Clip, **reporting: bool) -> Made:
        """One of the videos to compare; ``reporting`` as in :func:`~psa_core.apps.generate.sample.sample`.

        Raises:
            ValueError: its pixels are not numbers.
        """
        self._done += 1
        made = self._sample(settings, clip, f"{self._done}/{self._total} {settings.preset}", **reporting)
        if not np.isfinite(made.frames).all():
            raise ValueError("the video has pixels that are not numbers")
        return made

    def measured(self, settings: GenerateSettings, clip: Clip) -> Made:
        """The same with errors of attention."""
        return self._sample(settings, clip, f"errors of {settings.preset}", measure_errors=True)

    def warm_up(self, settings: GenerateSettings, clip: Clip) -> None:
        """Run a few steps, for what the first ones compile."""
        self._sample(for_warm_up(settings, _WARM_UP_STEPS), clip, f"warming up {settings.preset}")

    def _sample(self, settings: GenerateSettings, clip: Clip, label: str, **reporting: bool) -> Made:
        self._pipeline.set_progress_bar_config(desc=label)
        return sample(self._pipeline, dataclasses.replace(settings, seed=clip.seed), clip.prompt, **reporting)
