"""``psa compare``: its options, and the settings that they make."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...settings.dial import DIAL_PRESETS
from ...settings.errors import ConfigError
from ..generate.options import (
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
from .comparison_settings import DENSE, DENSE_CONFIG, CompareSettings

OUTPUT = Path("psa-compare")
_NEEDS = (*NEEDS, "matplotlib", "skimage", "jinja2")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa compare``."""
    what = parser.add_argument_group("what to show")
    add_prompt_options(what, OUTPUT)
    what.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the noise, for every prompt; default: 0")
    add_model_options(parser.add_argument_group("model"))
    attention = parser.add_argument_group("attention", "what is given here changes every preset")
    attention.add_argument(
        "--presets", nargs="+", metavar="PRESET", help="default: all sparse ones but the dial's, if there are any"
    )
    add_quality_option(attention, nargs="+")
    add_attention_options(attention, parser)
    attention.add_argument(
        "--no-errors", action="store_true", help="leave out the errors of attention, which take a run of each preset"
    )
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa compare`` does.

    Raises:
        ConfigError, BackendError, OSError, ImportError: something that the user can set right; no prompt has run.
        FailedPromptsError: some of the videos or measurements have failed.
    """
    settings = read_settings(parsed)
    check_packages(parsed, "compare", _NEEDS)
    from .comparing import run_compare

    print(run_compare(settings))


def read_settings(parsed: argparse.Namespace) -> CompareSettings:
    """The settings of a command line, the model's defaults where it says nothing.

    Every video has the same steps and guidance: those of the presets where they agree on them, else the model's.

    Raises:
        ConfigError: an option is not allowed.
        OSError: a file cannot be read.
    """
    model = read_model(parsed)
    family = read_family(parsed, model)
    qualities = {read_quality(quality): "--quality" for quality in parsed.quality or []}
    names = [*(parsed.presets or []), *qualities]
    if not names:
        # The dial has an option of its own.
        sparse = [name for name, config in family.presets.items() if config.type != "dense"]
        names = [name for name in sparse if name not in DIAL_PRESETS] or sparse
    if not names:
        raise ConfigError("--presets", None, f"{model.name} has no sparse one")
    configs = {name: read_config(parsed, family, name, qualities.get(name, "--presets")) for name in names}
    paces = {pace_of(model.facts, name) for name in configs}
    pace = paces.pop() if len(paces) == 1 else pace_of(model.facts, DENSE)
    seeds = tuple(dict.fromkeys(parsed.seeds))
    settings = [
        read_generate_settings(parsed, model, name, config, pace, 0)
        for name, config in ((DENSE, DENSE_CONFIG), *configs.items())
    ]
    return CompareSettings(
        dense=settings[0], presets=tuple(settings[1:]), seeds=seeds, measure_errors=not parsed.no_errors
    )
