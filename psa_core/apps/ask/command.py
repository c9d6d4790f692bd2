"""``psa ask``: its options, and the settings that they make."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...ops.backends import BACKENDS
from ...settings.dial import QUALITIES, preset_of
from ...settings.errors import ConfigError
from ..packages import need
from .ask_settings import AskSettings

_NEEDS = ("transformers", "torchvision", "imageio_ffmpeg", "PIL")
_DEFAULT_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa ask``."""
    parser.add_argument("video", type=Path, help="a video file, or a folder of pictures")
    parser.add_argument("question", help="in any language that the model knows")
    parser.add_argument("--model", default=_DEFAULT_MODEL, help=f"a folder, or a hub id; default: {_DEFAULT_MODEL}")
    parser.add_argument("--frames", type=int, default=128, help="of the video, at most, evenly spread; default: 128")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer, at most; default: 128")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--preset", help="as psa presets names it; default: the model's")
    which.add_argument("--quality", choices=QUALITIES, help="the dial, in place of a preset")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="default: auto")
    parser.add_argument("--min-tokens", type=int, help="prompts shorter than this stay dense; default: the preset's")
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa ask`` does.

    Raises:
        ConfigError, BackendError, OSError, ImportError: something that the user can set right.
    """
    settings = read_settings(parsed)
    need("ask", *_NEEDS)
    from .asking import run_ask

    print(run_ask(settings))


def read_settings(parsed: argparse.Namespace) -> AskSettings:
    """The settings of a command line.

    Raises:
        ConfigError: an option is not allowed.
    """
    for option, least in (("frames", 2), ("tokens", 1), ("min_tokens", 0)):
        value = getattr(parsed, option)
        if value is not None and value < least:
            raise ConfigError(f"--{option.replace('_', '-')}", value, f"must be {least} or more")
    if not parsed.video.exists():
        raise ConfigError("video", str(parsed.video), "there is no such file or folder")
    return AskSettings(
        video=parsed.video,
        question=parsed.question,
        model=parsed.model,
        preset=preset_of(parsed.quality) if parsed.quality else parsed.preset,
        frames=parsed.frames,
        tokens=parsed.tokens,
        backend=parsed.backend,
        min_tokens=parsed.min_tokens,
    )
