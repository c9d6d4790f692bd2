"""What a user may choose of the videos, checked before any weights are loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ...models.tiny_video.vocabulary import read_prompt
from ...ops.backends import BACKENDS
from ...settings.config import PSAConfig
from ...settings.errors import ConfigError, errors_at
from ...settings.scenes import check_scenes
from .models import MODELS, Model

_FRAMES_PER_LATENT = 4


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """Settings of one run.

    Attributes:
        model: a name in ``MODELS``.
        path: folder or hub id of its weights in diffusers format.
        prompts: one a video.
        negative_prompt: what videos should not show.
        preset: name of the preset that ``config`` comes from.
        config: settings of the attention; ``type: dense`` leaves it as it is.
        backend: of the attention.
        steps: denoising steps.
        guidance, guidance_2: scales of classifier-free guidance; the second is that of a second expert, or None.
        width, height: in pixels.
        frames: of a video.
        seed: of the noise of every video.
        lora: a file, or a folder with one, in diffusers format.
        cpu_offload: keep on the GPU only what is at work, and decode in tiles.
        output: the folder to write to; made when it is not there.

    Raises:
        ConfigError: a setting is not allowed; the message names the option.
    """

    model: str
    path: str
    prompts: tuple[str, ...]
    negative_prompt: str | None
    preset: str
    config: PSAConfig
    backend: str
    steps: int
    guidance: float
    guidance_2: float | None
    width: int
    height: int
    frames: int
    seed: int
    lora: Path | None
    cpu_offload: bool
    output: Path

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ConfigError("--prompt, --prompt-file", None, "there is no prompt to make a video of")
        for prompt in self.prompts:
            if not prompt.strip():
                raise ConfigError("--prompt", prompt, "must not be empty")
        if self.backend not in BACKENDS:
            raise ConfigError("--backend", self.backend, "must be one of " + ", ".join(BACKENDS))
        if self.steps < 1:
            raise ConfigError("--steps", self.steps, "must be 1 or more")
        if not 0 <= self.guidance < math.inf:
            raise ConfigError("--guidance", self.guidance, "must be a number, 0 or more")
        check_seed("--seed", self.seed)
        if self.facts.bundled:
            self._check_bundled()
        self._check_size()
        self._check_scenes()
        if self.lora is not None:
            lora_file(self.lora)

    @property
    def facts(self) -> Model:
        """What is known of the model."""
        return MODELS[self.model]

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

    def _check_size(self) -> None:
        step = self.facts.size_step
        for option, size in (("--width", self.width), ("--height", self.height)):
            if size < 2 * step or size % step:
                raise ConfigError(option, size, f"must be a multiple of {step}, {2 * step} or more, for {self.model}")
        if self.frames < 5 or self.frames % _FRAMES_PER_LATENT != 1:
            raise ConfigError("--frames", self.frames, "must be a multiple of 4 and one more: 5, 9, 13 ...")

    def _check_scenes(self) -> None:
        radial = self.config.radial
        if self.config.type == "dense" or radial is None or not radial.scene_boundaries:
            return
        latents = (self.frames - 1) // _FRAMES_PER_LATENT + 1
        # CogVideoX1.5 fills the last frame of tokens up.
        frames = math.ceil(latents * _FRAMES_PER_LATENT / self.facts.frames_per_token)
        check_scenes(radial.scene_boundaries, radial.scene_adjacency, frames, self.facts.frames_per_token)


def check_seed(option: str, seed: int) -> None:
    """Refuse a seed that torch cannot take; ``option`` has named it.

    Raises:
        ConfigError: see above.
    """
    if not 0 <= seed < 1 << 63:
        raise ConfigError(option, seed, "must be a whole number from 0 to 2**63 - 1")


def lora_file(path: Path) -> Path:
    """The file of a LoRA that is given as a file or as a folder that holds one.

    Raises:
        ConfigError: there is none, or more than one.
    """
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        held = "which holds more than one" if files else "which holds none" if path.is_dir() else "which is not there"
        raise ConfigError("--lora", str(path), f"must be a .safetensors file, or a folder with one, {held}")
    return files[0]
