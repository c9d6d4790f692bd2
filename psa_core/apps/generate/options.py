"""Options that the commands which make videos share, and the settings that they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...ops.backends import BACKENDS
from ...settings.config import DENSE_BACKENDS, PRECISIONS, PSAConfig
from ...settings.dial import QUALITIES, preset_of
from ...settings.errors import ConfigError
from ...settings.preset_schema import ModelFamily
from ...settings.presets import load_families
from ...settings.validation import check_choice
from ..options import add_sparsity_options, read_sparsity_options
from ..packages import need
from .choose_model import Chosen, choose_model
from .loras import read_loras
from .models import MODELS, Model
from .picture import size_like
from .video_settings import GenerateSettings

NEEDS = ("diffusers", "transformers", "accelerate", "ftfy", "imageio_ffmpeg")


class Pace(NamedTuple):
    """How a model denoises: steps, and scale of the prompt's guidance."""

    steps: int
    guidance: float


# Settings of ``PSAConfig`` with an option of the same name.
_OF_CONFIG = ("min_tokens", "precision", "dense_backend", "max_extra_memory")
# What a distilled model was made for, by preset.
_DISTILLED = {"psa_4steps": Pace(4, 1.0)}


def add_prompt_options(group: Any, output: Path) -> None:
    """What to show, and the folder to write to, which is ``output`` by default."""
    group.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to show; several make several videos")
    group.add_argument("--prompt", action="append", default=[], help="one more; may be given more than once")
    group.add_argument("--prompt-file", type=Path, help="one prompt a line; lines that begin with # are left out")
    group.add_argument("--negative-prompt", help="what videos should not show")
    group.add_argument("--image", type=Path, help="the picture that videos begin with")
    group.add_argument("--width", type=int, help="pixels; default: the model's, in the proportions of --image")
    group.add_argument("--height", type=int, help="pixels; likewise")
    group.add_argument(
        "--frames", type=int, help="a multiple of 4 and one more, for some models another; default: the model's"
    )
    group.add_argument("--output", type=Path, default=output, help=f"the folder to write to; default: {output}")


def add_model_options(group: Any) -> None:
    """Which model, and how it runs."""
    group.add_argument("--model", help=f"a folder with a model of diffusers, or one of {', '.join(MODELS)}")
    group.add_argument("--path", help="folder or hub id of a named model's weights; default: on the Hub")
    group.add_argument("--steps", type=int, help="denoising steps; default: the model's")
    group.add_argument("--guidance", type=float, help="scale of the prompt's guidance; default: the model's")
    group.add_argument(
        "--lora", nargs="+", default=[], metavar="[high=|low=]FILE[:STRENGTH]",
        help="LoRAs in diffusers format; without high or low, both experts of Wan2.2_A14B take one",
    )  # fmt: skip
    group.add_argument("--cpu-offload", action="store_true", help="less GPU memory, and more time")


def add_attention_options(group: Any, parser: argparse.ArgumentParser) -> None:
    """What changes a preset, and where presets come from."""
    group.add_argument("--presets-file", type=Path, help="a preset file, or a folder of them")
    group.add_argument("--backend", default="auto", help=f"{', '.join(BACKENDS)}; default: auto")
    group.add_argument("--precision", help=f"{', '.join(PRECISIONS)}; default: the preset's")
    group.add_argument(
        "--dense-backend", help=f"for dense steps and layers: {', '.join(DENSE_BACKENDS)}; default: the preset's"
    )
    group.add_argument(
        "--max-extra-memory",
        type=float,
        metavar="GIB",
        help="what sparse attention may take beside its tensors; default: the preset's, which has no limit",
    )
    group.add_argument("--min-tokens", type=int, help="clips with fewer tokens stay dense; default: the preset's")
    add_sparsity_options(parser)


def add_quality_option(group: Any, **how: Any) -> None:
    """The dial, which :func:`read_quality` reads."""
    words, default = ", ".join(QUALITIES), f"; default: {how['default']}" if "default" in how else ""
    group.add_argument("--quality", help=f"how near to dense attention: {words}; preset auto_<quality>{default}", **how)


def read_quality(quality: str) -> str:
    """The preset that a quality is.

    Raises:
        ConfigError: there is no such quality.
    """
    check_choice("--quality", quality, QUALITIES)
    return preset_of(quality)


def check_packages(parsed: argparse.Namespace, command: str, needs: Sequence[str]) -> None:
    """See that the packages of ``psa <command>`` are installed, and keep transformers from warning.

    Raises:
        ImportError: some are not; the message says how to install them.
    """
    need(command, *needs, *(["peft"] if parsed.lora else []))
    import transformers

    # diffusers makes it warn of image processors, none of which these pipelines use.
    transformers.logging.set_verbosity_error()


def read_model(parsed: argparse.Namespace) -> Chosen:
    """The model.

    Raises:
        ConfigError: there is no such model.
    """
    return choose_model(parsed.model, parsed.path)


def read_family(parsed: argparse.Namespace, model: Chosen) -> ModelFamily:
    """The presets of the model.

    Raises:
        ConfigError: a preset file is not valid or has none of this model.
        OSError: there is no such file.
    """
    families = load_families(parsed.presets_file)
    if model.presets not in families:
        raise ConfigError("--presets-file", str(parsed.presets_file), f"holds no preset of {model.presets}")
    return families[model.presets]


def read_config(parsed: argparse.Namespace, family: ModelFamily, preset: str, option: str) -> PSAConfig:
    """Settings of a preset, with what the command line changes of it; ``option`` has named the preset.

    Raises:
        ConfigError: there is no such preset, or an option is not allowed.
    """
    if preset not in family.presets:
        raise ConfigError(option, preset, f"{family.name} has " + ", ".join(family.presets))
    config = family.presets[preset]
    changes = {key: value for key, value in read_sparsity_options(parsed).items() if value is not None}
    if changes and config.type == "dense":
        raise ConfigError(option, preset, f"is dense, so that --{' and --'.join(changes)} would do nothing")
    changes |= {key: getattr(parsed, key) for key in _OF_CONFIG if getattr(parsed, key) is not None}
    try:
        return config.replace(**changes)
    except ConfigError as error:
        if error.key not in _OF_CONFIG:
            raise
        raise ConfigError(f"--{error.key.replace('_', '-')}", error.value, error.allowed) from None


def pace_of(facts: Model, preset: str) -> Pace:
    """The steps and the guidance that suit a model with a preset."""
    return _DISTILLED.get(preset, Pace(facts.steps, facts.guidance))


def read_generate_settings(
    parsed: argparse.Namespace, model: Chosen, preset: str, config: PSAConfig, pace: Pace, seed: int
) -> GenerateSettings:
    """The settings of one preset and seed, the model's defaults where the command line says nothing.

    Raises:
        ConfigError: an option is not allowed, or a file cannot be read.
    """
    facts = model.facts
    # A guidance of one's own is for both experts.
    own_guidance = parsed.guidance is not None
    width, height = facts.width, facts.height
    if parsed.image is not None and width and parsed.width is None and parsed.height is None:
        width, height = size_like(parsed.image, width, height, facts.size_step)
    return GenerateSettings(
        model=model.name,
        facts=facts,
        path=model.path,
        prompts=_prompts(parsed),
        negative_prompt=parsed.negative_prompt,
        preset=preset,
        config=config,
        backend=parsed.backend,
        steps=pace.steps if parsed.steps is None else parsed.steps,
        guidance=parsed.guidance if own_guidance else pace.guidance,
        guidance_2=parsed.guidance if own_guidance and facts.guidance_2 is not None else facts.guidance_2,
        image=parsed.image,
        width=width if parsed.width is None else parsed.width,
        height=height if parsed.height is None else parsed.height,
        frames=facts.frames if parsed.frames is None else parsed.frames,
        seed=seed,
        loras=read_loras(parsed.lora, 1 if facts.guidance_2 is None else 2),
        cpu_offload=parsed.cpu_offload,
        output=parsed.output,
    )


def _prompts(parsed: argparse.Namespace) -> tuple[str, ...]:
    prompts = [*parsed.prompts, *parsed.prompt]
    if parsed.prompt_file is not None:
        try:
            lines = parsed.prompt_file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ConfigError("--prompt-file", str(parsed.prompt_file), "must be a text file in UTF-8") from None
        except OSError as error:
            raise ConfigError("--prompt-file", str(parsed.prompt_file), f"cannot be read: {error.strerror}") from None
        prompts += [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    for prompt in prompts:
        # What the terminal could not decode comes as half letters, which no file can hold.
        if prompt.encode("utf-8", "replace").decode() != prompt:
            raise ConfigError("--prompt", prompt, "must be text; some of its bytes are no letters in this terminal")
    return tuple(prompts)
