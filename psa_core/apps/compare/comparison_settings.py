"""What a user may choose of a comparison, checked before any weights are loaded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ...settings.config import PSAConfig
from ...settings.errors import ConfigError
from ..generate.video_settings import GenerateSettings, check_seed

# The name of the column without PSA.
DENSE = "dense"
DENSE_CONFIG = PSAConfig(type="dense")


@dataclass(frozen=True)
class Clip:
    """What is shown once with every attention."""

    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Settings of one comparison.

    Attributes:
        dense: of the videos with dense attention; its own seed means nothing.
        presets: of those with each preset; they differ in nothing but the attention.
        seeds: of the noise, for every prompt.
        measure_errors: also measure, for the first clip, how far attention's outputs are from dense attention.

    Raises:
        ConfigError: a setting is not allowed; the message names the option.
    """

    dense: GenerateSettings
    presets: tuple[GenerateSettings, ...]
    seeds: tuple[int, ...]
    measure_errors: bool

    def __post_init__(self) -> None:
        for seed in self.seeds:
            check_seed("--seeds", seed)
        for preset in self.presets:
            if preset.preset == DENSE:
                raise ConfigError("--presets", DENSE, "is what the others are compared with; give it another name")

    @property
    def output(self) -> Path:
        """The folder to write to."""
        return self.dense.output

    @property
    def attentions(self) -> tuple[GenerateSettings, ...]:
        """Dense first, then the presets."""
        return self.dense, *self.presets

    @property
    def strictest(self) -> GenerateSettings:
        """Those that ask most of the machine: sparse attention, where there is any."""
        return next((preset for preset in self.presets if preset.config.type != "dense"), self.dense)

    @property
    def clips(self) -> list[Clip]:
        """Every prompt with every seed."""
        return [Clip(prompt, seed) for prompt in self.dense.prompts for seed in self.seeds]


def for_warm_up(settings: GenerateSettings, steps: int) -> GenerateSettings:
    """Settings for a few steps that run sparse where the preset's own first ones would be dense."""
    config = settings.config
    radial = config.radial
    if radial is not None:
        radial = radial.replace(dense_timesteps=0, last_dense_timesteps=0)
    config = config.replace(warmup_steps=0, schedule=None, radial=radial)
    return dataclasses.replace(settings, steps=steps, config=config)
