"""``psa generate``: its options, and the settings that they make."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from ...settings.errors import ConfigError
from .options import (
    NEEDS,
    add_attention_options,
    add_model_options,
    add_prompt_options,
    add_quality_option,
    check_packages,
    pace_of,
    read_config,
    read_family,
    read_generate_settings,
    read_model,
    read_quality,
)
from .video_settings import GenerateSettings

OUTPUT = Path("psa-generate")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa generate``."""
    what = parser.add_argument_group("what to show")
    add_prompt_options(what, OUTPUT)
    what.add_argument("--seed", type=int, default=0, help="of the noise, the same for every prompt; default: 0")
    model = parser.add_argument_group("model")
    add_model_options(model)
    model.add_argument("--gpus", type=int, default=1, help="that share a model's heads; default: 1")
    attention = parser.add_argument_group("attention")
    attention.add_argument("--preset", help="default: the model's; baseline is dense attention")
    add_quality_option(attention)
    add_attention_options(attention, parser)
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa generate`` does.

    Raises:
        ConfigError, BackendError, OSError, ImportError: something that the user can set right; no prompt has run.
        FailedPromptsError: prompts have failed.
    """
    settings = read_settings(parsed)
    check_packages(parsed, "generate", NEEDS)
    from . import gpus
    from .generating import check_run, run_generate

    if settings.gpus == 1:
        print(run_generate(settings))
    elif gpus.is_started():
        with gpus.joined():
            line = run_generate(settings)
        if line:
            print(line)
    else:
        # Once here, rather than in every process.
        gpus.check_count(settings.gpus)
        check_run(settings)
        if code := gpus.start(settings.gpus, parsed.arguments):
            print("psa: what went wrong is said above the report of torchrun", file=sys.stderr)
            raise SystemExit(code)


def read_settings(parsed: argparse.Namespace) -> GenerateSettings:
    """The settings of a command line, the model's defaults where it says nothing.

    Raises:
        ConfigError: an option is not allowed.
        OSError: a file cannot be read.
    """
    model = read_model(parsed)
    family = read_family(parsed, model)
    preset, option = family.default if parsed.preset is None else parsed.preset, "--preset"
    if parsed.quality is not None:
        if parsed.preset is not None:
            raise ConfigError("--quality", parsed.quality, "must not stand beside --preset: leave one of them out")
        preset, option = read_quality(parsed.quality), "--quality"
    config = read_config(parsed, family, preset, option)
    settings = read_generate_settings(parsed, model, preset, config, pace_of(model.facts, preset), parsed.seed)
    return dataclasses.replace(settings, gpus=parsed.gpus)
