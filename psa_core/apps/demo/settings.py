"""What a user may choose in the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...settings.config import PSAConfig
from ...settings.errors import ConfigError
from ...settings.presets import bundled_dir, load_preset
from ...settings.radial import RadialMask
from ...settings.schedule import Schedule
from ..generate.models import MODELS
from ..generate.settings import GenerateSettings

MODEL = "tiny_video"
_FACTS = MODELS[MODEL]


@dataclass(frozen=True)
class DemoSettings:
    """Settings of one demo.

    Attributes:
        output: the folder to write to; made when it is not there.
        prompt: what to show, in the words of the tiny model.
        steps: denoising steps.
        frames: of the video, a multiple of 4 and one more.
        width, height: of the video in pixels, multiples of 16.
        seed: of the noise.
        schedule, radial: settings of the attention.

    Raises:
        ConfigError: a setting is not allowed; the message names the option.
    """

    output: Path = Path("psa-demo")
    prompt: str = "a red circle moving left over gray stripes"
    steps: int = 8
    frames: int = _FACTS.frames
    width: int = _FACTS.width
    height: int = _FACTS.height
    seed: int = 0
    schedule: Schedule | None = None
    radial: RadialMask | None = None

    def __post_init__(self) -> None:
        warmup = self.config.warmup_steps
        if self.steps <= warmup:
            raise ConfigError("--steps", self.steps, f"must be more than {warmup}: that many are dense")
        self.generate(self.config)

    @property
    def config(self) -> PSAConfig:
        """The attention settings that the demo runs: the model's default preset."""
        preset = load_preset(MODEL, path=bundled_dir() / f"{MODEL}.yaml")
        return preset.replace(schedule=self.schedule, radial=self.radial)

    def generate(self, config: PSAConfig) -> GenerateSettings:
        """The settings of a video with this attention."""
        return GenerateSettings(
            model=MODEL,
            path="",
            prompts=(self.prompt,),
            negative_prompt=None,
            preset="",
            config=config,
            backend="torch",
            steps=self.steps,
            guidance=_FACTS.guidance,
            guidance_2=None,
            width=self.width,
            height=self.height,
            frames=self.frames,
            seed=self.seed,
            lora=None,
            cpu_offload=False,
            output=self.output,
        )
