"""The clip whose self-attention is measured: a model's, at a size."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ...settings.errors import ConfigError
from ...settings.preset_schema import ModelFamily
from ...settings.presets import bundled_dir, load_families
from ..bench.cases import Case

DEFAULT_FAMILY = "Wan2.1_1.3b"
# Video frames a latent frame, in the autoencoders of all of them.
_FRAMES = 4


@dataclass(frozen=True)
class Clip:
    """A video, and the heads of the model that makes it.

    Attributes:
        family: what the preset files say of the model.
        width, height: in pixels.
        frames: of the video.
        heads, head_dim: attention heads, and numbers a head.
    """

    family: ModelFamily
    width: int
    height: int
    frames: int
    heads: int
    head_dim: int

    @classmethod
    def of(cls, family: str, width: int, height: int, frames: int, heads: tuple[int, int] | None = None) -> Clip:
        """A clip of a bundled family.

        Args:
            heads: (heads, numbers a head) of a model that differs from the family's.

        Raises:
            ConfigError: there is no such family, or none that makes videos.
        """
        known = {name: each for name, each in load_families(bundled_dir()).items() if each.heads}
        if family not in known:
            raise ConfigError("--model", family, "must be one of " + ", ".join(known))
        found = known[family]
        return cls(found, width, height, frames, *(heads or (found.heads, found.head_dim)))

    def case(self) -> Case:
        """Its self-attention."""
        scale = self.family.video_scale
        latents = (self.frames - 1) // _FRAMES + 1
        grid = (
            math.ceil(latents * _FRAMES / scale["depth_divisor"]),
            math.ceil(self.height / scale["height_divisor"]),
            math.ceil(self.width / scale["width_divisor"]),
        )
        return Case(self.family.name, self.heads, self.head_dim, grid, self.family.text_length)

    @property
    def working_memory(self) -> int:
        """About the bytes that measuring it takes: copies of a tensor in 16 bits, and float32 for the check."""
        case = self.case()
        return 24 * case.tokens * case.heads * case.head_dim + (1 << 30)

    def shortened(self) -> Clip | None:
        """One of half the frames; None where there is one frame left."""
        return dataclasses.replace(self, frames=(self.frames + 1) // 2) if self.frames > 1 else None

    def text(self) -> str:
        """It, for people."""
        case = self.case()
        return (
            f"{case.tokens:,} tokens ({self.family.name}, {self.width} x {self.height}, {self.frames} frames), "
            f"{self.heads} heads of {self.head_dim}"
        )
