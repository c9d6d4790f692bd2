"""What a user may choose of the videos, checked before any weights are loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...models.tiny_video.vocabulary import read_prompt
from ...ops.backends import BACKENDS
from ...settings.config import PSAConfig
from ...settings.errors import ConfigError, errors_at
from ...settings.scenes import check_scenes
from .loras import Lora
from .models import MODELS, Model


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """Settings of one run.

    Attributes:
        model: its name.
        facts: what is known of it.
        path: folder or hub id of its weights in diffusers format.
        prompts: one a video.
        negative_prompt: what videos should not show.
        preset: name of the preset that ``config`` comes from.
        config: settings of the attention; ``type: dense`` leaves it as it is.
        backend: of the attention.
        steps: denoising steps.
        guidance, guidance_2: scales of classifier-free guidance; the second is that of a second expert, or None.
        image: the picture that videos begin with.
        width, height: in pixels; 0 to leave them to the pipeline.
        frames: of a video; likewise.
        seed: of the noise of every video.
        loras: in diffusers format.
        cpu_offload: keep on the GPU only what is at work, and decode in tiles.
        gpus: that share the heads of the model.
        output: the folder to write to; made when it is not there.

    Raises:
        ConfigError: a setting is not allowed; the message names the option.
    """

    model: str
    facts: Model
    path: str
    prompts: tuple[str, ...]
    negative_prompt: str | None
    preset: str
    config: PSAConfig
    backend: str
    steps: int
    guidance: float
    guidance_2: float | None
    image: Path | None
    width: int
    height: int
    frames: int
    seed: int
    loras: tuple[Lora, ...]
    cpu_offload: bool
    output: Path
    gpus: int = 1

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ConfigError("--prompt, --prompt-file", None, "there is no prompt to make a video of")
        for prompt in self.prompts:
            if not prompt.strip():
                raise ConfigError("--prompt", prompt, "must not be empty")
        if self.backend not in BACKENDS:
            raise ConfigError("--backend", self.backend, "must be one of " + ", ".join(BACKENDS))
        self._check_denoising()
        check_seed("--seed", self.seed)
        if self.gpus < 1:
            raise ConfigError("--gpus", self.gpus, "must be 1 or more")
        if self.gpus > 1:
            self._check_gpus()
        if self.facts.bundled:
            self._check_bundled()
        self._check_image()
        self._check_size()
        self._check_scenes()

    @property
    def pipeline(self) -> str:
        """The class in diffusers that makes these videos."""
        return self.facts.pipeline if self.image is None else self.facts.image_pipeline

    @property
    def workflow(self) -> str:
        """Which way of a modular pipeline; "" for the others."""
        return "" if not self.facts.workflows else self.facts.workflows[self.image is not None]

    @property
    def experts(self) -> int:
        """How many models denoise one after the other."""
        return 1 if self.facts.guidance_2 is None else 2

    @property
    def flow_shift(self) -> float | None:
        """That of the scheduler; None to leave it alone."""
        return self.facts.flow_shift(self.width, self.height)

    def _check_bundled(self) -> None:
        if self.path:
            raise ConfigError("--path", self.path, f"the weights of {self.model} are in this package")
        for option, prompts in (("--prompt", self.prompts), ("--negative-prompt", (self.negative_prompt or "",))):
            for prompt in prompts:
                with errors_at(option):
                    read_prompt(prompt)

    def _check_denoising(self) -> None:
        if self.steps < 1:
            raise ConfigError("--steps", self.steps, "must be 1 or more")
        if not 0 <= self.guidance < math.inf:
            raise ConfigError("--guidance", self.guidance, "must be a number, 0 or more")
        if self.facts.workflows and self.steps < 2:
            raise ConfigError("--steps", self.steps, f"must be 2 or more for {self.model}, whose last step is its end")
        if not self.facts.distilled:
            return
        without = f"leave it out: {self.model} has guidance in its weights"
        if self.guidance != self.facts.guidance:
            raise ConfigError("--guidance", self.guidance, without)
        if self.negative_prompt is not None:
            raise ConfigError("--negative-prompt", self.negative_prompt, without)

    def _check_gpus(self) -> None:
        if self.cpu_offload:
            raise ConfigError("--gpus", self.gpus, "must not stand beside --cpu-offload: leave one of them out")
        if not self.facts.shared:
            others = ", ".join(name for name, facts in MODELS.items() if facts.shared)
            what = f"GPUs cannot share the heads of {self.model}; those of these they can: {others}"
            raise ConfigError("--gpus", self.gpus, what)

    def _check_image(self) -> None:
        if self.image is None and not self.facts.pipeline:
            raise ConfigError("--image", None, f"{self.model} makes videos from a picture: give one")
        if self.image is not None and not self.facts.image_pipeline:
            others = ", ".join(_with_picture(MODELS))
            raise ConfigError("--image", str(self.image), f"{self.model} takes no picture; these do: {others}")

    def _check_size(self) -> None:
        facts, step = self.facts, self.facts.size_step
        for option, size, own in (("--width", self.width, facts.width), ("--height", self.height, facts.height)):
            left_alone = size == own == 0
            if not left_alone and (size < 2 * step or size % step):
                raise ConfigError(option, size, f"must be a multiple of {step}, {2 * step} or more, for {self.model}")
        self._check_frames(facts.frames_step, facts.frames_rest)

    def _check_frames(self, step: int, rest: int) -> None:
        least, most = self.facts.least_frames, self.facts.most_frames
        wrong = self.frames <= step or self.frames % step != rest
        if step > 1 and (wrong or self.frames < least or (most and self.frames > most)):
            first = least or step + rest
            examples = ", ".join(str(first + i * step) for i in range(3))
            more, end = ("one", "...") if rest == 1 else (str(rest), f"... {most}")
            what = f"must be a multiple of {step} and {more} more: {examples} {end}"
            raise ConfigError("--frames", self.frames, what)

    def _check_scenes(self) -> None:
        radial = self.config.radial
        if self.config.type == "dense" or radial is None or not radial.scene_boundaries or not self.frames:
            return
        frames = self.facts.token_frames(self.frames)
        check_scenes(radial.scene_boundaries, radial.scene_adjacency, frames, self.facts.frames_per_token)


def _with_picture(models: dict[str, Model]) -> Iterable[str]:
    return (name for name, facts in models.items() if facts.image_pipeline)


def check_seed(option: str, seed: int) -> None:
    """Refuse a seed that torch cannot take; ``option`` has named it.

    Raises:
        ConfigError: see above.
    """
    if not 0 <= seed < 1 << 63:
        raise ConfigError(option, seed, "must be a whole number from 0 to 2**63 - 1")
