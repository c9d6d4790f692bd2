"""``psa generate``: its options, and the settings that they make."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from ..backends import BACKENDS
from ..config import PSAConfig
from ..errors import ConfigError
from ..options import add_sparsity_options, read_sparsity_options
from ..presets import load_families
from .models import MODELS
from .settings import GenerateSettings

OUTPUT = Path("psa-generate")
_NEEDS = ("diffusers", "transformers", "accelerate", "ftfy", "imageio", "imageio_ffmpeg")
# Steps and guidance that a distilled model was made for, by preset.
_DISTILLED = {"psa_4steps": (4, 1.0)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa generate``."""
    what = parser.add_argument_group("what to show")
    what.add_argument("--prompt", action="append", default=[], help="may be given more than once, for more videos")
    what.add_argument("--prompt-file", type=Path, help="one prompt a line; lines that begin with # are left out")
    what.add_argument("--negative-prompt", help="what videos should not show")
    what.add_argument("--width", type=int, help="pixels; default: the model's")
    what.add_argument("--height", type=int, help="pixels; default: the model's")
    what.add_argument("--frames", type=int, help="a multiple of 4 and one more; default: the model's")
    what.add_argument("--seed", type=int, default=0, help="of the noise, the same for every prompt; default: 0")
    what.add_argument("--output", type=Path, default=OUTPUT, help=f"the folder to write to; default: {OUTPUT}")

    model = parser.add_argument_group("model")
    model.add_argument("--model", required=True, help=", ".join(MODELS))
    model.add_argument("--path", help="folder or hub id of weights in diffusers format; default: on the Hub")
    model.add_argument("--steps", type=int, help="denoising steps; default: the model's")
    model.add_argument("--guidance", type=float, help="scale of the prompt's guidance; default: the model's")
    model.add_argument("--lora", type=Path, help="a LoRA in diffusers format; both experts of Wan2.2_A14B take it")
    model.add_argument("--cpu-offload", action="store_true", help="less GPU memory, and more time")

    attention = parser.add_argument_group("attention")
    attention.add_argument("--preset", help="default: the model's; baseline is dense attention")
    attention.add_argument("--presets-file", type=Path, help="a preset file, or a folder of them")
    attention.add_argument("--backend", default="auto", help=f"{', '.join(BACKENDS)}; default: auto")
    attention.add_argument("--min-tokens", type=int, help="clips with fewer tokens stay dense; default: the preset's")
    add_sparsity_options(parser)
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa generate`` does.

    Raises:
        ConfigError, BackendError, OSError, ImportError: something that the user can set right; no prompt has run.
        FailedPromptsError: prompts have failed.
    """
    settings = read_settings(parsed)
    needs = (*_NEEDS, "peft") if settings.lora else _NEEDS
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'psa generate needs {", ".join(missing)}: pip install "pyramid-sparse-attention[generate]"')
    import transformers

    # diffusers makes it warn of image processors, none of which these pipelines use.
    transformers.logging.set_verbosity_error()
    from .run import run_generate

    print(run_generate(settings))


def read_settings(parsed: argparse.Namespace) -> GenerateSettings:
    """The settings of a command line, the model's defaults where it says nothing.

    Raises:
        ConfigError: an option is not allowed.
        OSError: a file cannot be read.
    """
    if parsed.model not in MODELS:
        raise ConfigError("--model", parsed.model, "must be one of " + ", ".join(MODELS))
    model = MODELS[parsed.model]
    preset, config = _attention(parsed)
    steps, guidance = _DISTILLED.get(preset, (model.steps, model.guidance))
    # A guidance of one's own is for both experts.
    own_guidance = parsed.guidance is not None
    return GenerateSettings(
        model=parsed.model,
        path=model.hub_id if parsed.path is None else parsed.path,
        prompts=_prompts(parsed),
        negative_prompt=parsed.negative_prompt,
        preset=preset,
        config=config,
        backend=parsed.backend,
        steps=steps if parsed.steps is None else parsed.steps,
        guidance=parsed.guidance if own_guidance else guidance,
        guidance_2=parsed.guidance if own_guidance and model.guidance_2 is not None else model.guidance_2,
        width=model.width if parsed.width is None else parsed.width,
        height=model.height if parsed.height is None else parsed.height,
        frames=model.frames if parsed.frames is None else parsed.frames,
        seed=parsed.seed,
        lora=parsed.lora,
        cpu_offload=parsed.cpu_offload,
        output=parsed.output,
    )


def _prompts(parsed: argparse.Namespace) -> tuple[str, ...]:
    prompts = list(parsed.prompt)
    if parsed.prompt_file is not None:
        try:
            lines = parsed.prompt_file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ConfigError("--prompt-file", str(parsed.prompt_file), "must be a text file in UTF-8") from None
        prompts += [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return tuple(prompts)


def _attention(parsed: argparse.Namespace) -> tuple[str, PSAConfig]:
    """Name and settings of the preset, with what the command line changes of it."""
    families = load_families(parsed.presets_file)
    if parsed.model not in families:
        raise ConfigError("--presets-file", str(parsed.presets_file), f"holds no preset of {parsed.model}")
    family = families[parsed.model]
    preset = family.default if parsed.preset is None else parsed.preset
    if preset not in family.presets:
        raise ConfigError("--preset", preset, f"{parsed.model} has " + ", ".join(family.presets))
    config = family.presets[preset]
    changes = {key: value for key, value in read_sparsity_options(parsed).items() if value is not None}
    if changes and config.type == "dense":
        raise ConfigError("--preset", preset, f"is dense, so that --{' and --'.join(changes)} would do nothing")
    if parsed.min_tokens is not None:
        changes["min_tokens"] = parsed.min_tokens
    return preset, config.replace(**changes)
