"""What a user may choose in the demo, and the attention settings that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import PSAConfig
from ..errors import ConfigError
from ..masks.settings import RadialMask
from ..schedule import Schedule

# A short sequence, so small key blocks; and only the last hundredth of the importance is skipped, because what a tiny
# model shows is little else than means over all that it sees.
CONFIG = PSAConfig(
    block_n=32,
    mask_ratios={1: (0, 0.7), 2: (0.7, 0.85), 4: (0.85, 0.95), 8: (0.95, 0.99), 0: (0.99, 1)},
    warmup_steps=1,
    min_tokens=0,
)


@dataclass(frozen=True)
class DemoSettings:
    """Settings of one demo.

    Attributes:
        output: the folder to write to; made when it is not there.
        steps: denoising steps, the first of them dense; 2 or more.
        frames: of the video, a multiple of 4 and one more.
        width, height: of the video in pixels, multiples of 16.
        seed: of the weights and the noise.
        schedule, radial: settings of the attention.

    Raises:
        ConfigError: a number is not allowed; the message names the option.
    """

    output: Path = Path("psa-demo")
    steps: int = 8
    frames: int = 33
    width: int = 320
    height: int = 192
    seed: int = 0
    schedule: Schedule | None = None
    radial: RadialMask | None = None

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ConfigError("--steps", self.steps, "must be 2 or more: the first step is dense")
        if self.frames < 5 or self.frames % 4 != 1:
            raise ConfigError("--frames", self.frames, "must be a multiple of 4 and one more: 5, 9, 13 ...")
        for option, size in (("--width", self.width), ("--height", self.height)):
            if size < 32 or size % 16:
                raise ConfigError(option, size, "must be a multiple of 16, 32 or more")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError("--seed", self.seed, "must be a whole number from 0 to 2**63 - 1")

    @property
    def config(self) -> PSAConfig:
        """The attention settings that the demo runs."""
        return CONFIG.replace(schedule=self.schedule, radial=self.radial)
