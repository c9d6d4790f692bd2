"""What the pixel study makes: clips at several sizes, each with every setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psa_core.models.tiny_video.vocabulary import COLOURS, GROUNDS, MOTIONS, PATTERNS, SHAPES
from psa_core.settings.config import PSAConfig
from psa_core.settings.errors import ConfigError
from psa_core.settings.orders import ORDERS_BY_CONTENT
from psa_core.settings.recipe import Recipe

from ..study.capture import SMALL, Clip

DENSITY = 0.15
# At this share Sol-Attn takes as long as the op at DENSITY.
_SOL_DENSITY = 0.08
_BASE = PSAConfig(block_m=128, block_n=128, min_tokens=0)
_CALIBRATED = _BASE.replace(mask_mode="calibrated", target_density=DENSITY)
_KEPT = _CALIBRATED.replace(map_steps=4)


@dataclass(frozen=True)
class Setting:
    """One way to make the clips.

    Attributes:
        config: of PSA; ``warmup_steps`` is the study's business. None for attention without it.
        sol: the share of blocks that Sol-Attn takes exactly; 0 where it has no part.
        cache: threshold of diffusers' first-block-cache; 0 without it.
        prompts_apart: whether calls with and without the prompt have recipes and kept maps of their own.
    """

    name: str
    config: PSAConfig | None = None
    sol: float = 0.0
    cache: float = 0.0
    prompts_apart: bool = False


PRESET, BEST_FIXED, CALIBRATED = "preset's recipe", "raster, sampled_sum, tail", "calibrated"
KEPT = f"{CALIBRATED}, map_steps 4"
SOL = f"Sol-Attn, top {100 * _SOL_DENSITY:g} %"


def _fixed(order: str, estimator: str, mix: str) -> PSAConfig:
    return Recipe(order=order, estimator=estimator, mix=mix, density=DENSITY).config(_BASE)


SETTINGS = (
    Setting(PRESET, _fixed("Gilbert", "sampled_max", "pyramid")),
    # A map that is kept serves the other prompt as well.
    Setting(f"{PRESET}, map_steps 4", _fixed("Gilbert", "sampled_max", "pyramid").replace(map_steps=4)),
    Setting("raster, sampled_max, level 1", _fixed("Raster", "sampled_max", "level 1")),
    Setting(BEST_FIXED, _fixed("Raster", "sampled_sum", "tail")),
    Setting(CALIBRATED, _CALIBRATED),
    Setting(f"{CALIBRATED}, map_steps 2", _CALIBRATED.replace(map_steps=2)),
    Setting(KEPT, _KEPT),
    *(
        Setting(f"{KEPT}, {precision}", _KEPT.replace(precision=precision))
        for precision in ("int8", "int8+fp8", "auto")
    ),
    Setting(f"{KEPT}, prompts apart", _KEPT, prompts_apart=True),
    *(
        Setting(f"{KEPT}, {order}, too", _KEPT.replace(candidate_orders=(*_KEPT.candidate_orders, order)))
        for order in ORDERS_BY_CONTENT
    ),
    Setting(SOL, sol=_SOL_DENSITY),
    Setting(f"Sol-Attn, top {100 * DENSITY:g} %", sol=DENSITY),
    *(
        Setting(f"{name}, first-block-cache {threshold:g}", config, cache=threshold)
        for threshold in (0.1, 0.2)
        for name, config in (("dense", None), (KEPT, _KEPT))
    ),
)


# What the dial shares its time between: dense steps first, and more of the density at the beginning.
DIAL_SETTINGS = tuple(
    Setting(f"density {density:g}, at first {early:.3g}x", _KEPT.replace(target_density=density, early_density=early))
    for density in (0.08, 0.15, 0.25)
    for early in (1.0, 4 / 3, 5 / 3)
)


@dataclass(frozen=True)
class Study:
    """Clips of one size.

    Attributes:
        clips: how many, each with a prompt and noise of its own.
        steps: of a denoising.
        dense_steps: the first of them, which decide what a clip shows.
        batch: clips that are made at once.
        settings: each of which makes the clips.
    """

    clip: Clip
    clips: int
    steps: int
    dense_steps: int
    batch: int
    settings: tuple[Setting, ...] = SETTINGS

    @property
    def size(self) -> str:
        return f"{self.clip.height} x {self.clip.width}"

    @property
    def name(self) -> str:
        return (
            self.size if self.settings is SETTINGS else f"{self.size}, {self.dense_steps} of {self.steps} steps dense"
        )


STUDIES = (Study(SMALL, 16, 20, 6, 16), Study(Clip(640, 768), 8, 12, 4, 8))
# Numbers of steps that people use, each with several warm-ups.
WARM_UPS = tuple(
    Study(SMALL, 16, steps, dense, 16, DIAL_SETTINGS)
    for steps, warm_ups in ((4, (0, 1, 2)), (8, (1, 2, 3)), (20, (3, 5, 7)), (50, (5, 10, 13)))
    for dense in warm_ups
)
# What a CPU can do.
QUICK_STUDIES = (Study(Clip(128, 160, 9), 2, 4, 1, 2),)


def studies_named(parts: Sequence[str]) -> tuple[Study, ...]:
    """The studies, warm-ups among them, whose name contains one of these.

    Raises:
        ConfigError: none does.
    """
    every = (*STUDIES, *WARM_UPS)
    found = tuple(study for study in every if any(part in study.name for part in parts))
    if not found:
        names = "; ".join(study.name for study in every)
        raise ConfigError("--cases", list(parts), f"is part of none of these names: {names}")
    return found


def prompt(number: int) -> str:
    """One of 32 different prompts; every second one has two objects."""

    def word(words: tuple[str, ...], step: int) -> str:
        return words[(number * step + number // len(words)) % len(words)]

    second = f" and a {word(COLOURS, 3)} {word(SHAPES, 3)} {word(MOTIONS, 5)}" if number % 2 else ""
    first = f"a {word(COLOURS, 1)} {word(SHAPES, 1)} {word(MOTIONS, 1)}"
    return f"{first}{second} over {word(GROUNDS, 1)} {word(PATTERNS, 3)}"
