"""``psa doctor``: its options, and what it prints and writes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...settings.errors import ConfigError
from ...settings.files import write_text
from .clip import DEFAULT_FAMILY, Clip
from .diagnosis import diagnose
from .findings import as_lines, findings

_STDOUT = Path("-")
_SIZES = {"width": (832, "pixels"), "height": (480, "pixels"), "frames": (81, "of the video")}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa doctor``."""
    parser.add_argument(
        "--measure", action="store_true", help="also this card's dense attention beside PSA, in under a minute"
    )
    measured = parser.add_argument_group("what --measure measures")
    measured.add_argument("--model", help=f"as psa presets names it; default: {DEFAULT_FAMILY}")
    for name, (default, what) in _SIZES.items():
        measured.add_argument(f"--{name}", type=int, help=f"{what}; default: {default}")
    measured.add_argument("--json", type=Path, metavar="FILE", help="write all of it as JSON; - for stdout, alone")
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa doctor`` does.

    Raises:
        ConfigError: no such model or size, or an option of --measure without it.
        OSError: the file cannot be written.
    """
    if not parsed.measure:
        for name in ("model", *_SIZES, "json"):
            if getattr(parsed, name) is not None:
                raise ConfigError(f"--{name}", str(getattr(parsed, name)), "needs --measure beside it")
        print("\n".join(as_lines(findings())))
        return
    diagnosis = diagnose(_clip(parsed), progress=_show)
    if parsed.json != _STDOUT:
        print(diagnosis.text())
    if parsed.json is not None:
        _write(diagnosis.as_json() + "\n", parsed.json)


def _show(done: int, whole: int) -> None:
    end = "" if done < whole else "\n"
    print(f"\rpsa: measuring, {100 * done // whole} %", end=end, file=sys.stderr, flush=True)


def _write(text: str, file: Path) -> None:
    if file == _STDOUT:
        sys.stdout.write(text)
    else:
        write_text(file, text)


def _clip(parsed: argparse.Namespace) -> Clip:
    sizes = []
    for name, (default, _) in _SIZES.items():
        size = getattr(parsed, name)
        if size is not None and size < 1:
            raise ConfigError(f"--{name}", size, "must be 1 or more")
        sizes.append(default if size is None else size)
    width, height, frames = sizes
    return Clip.of(parsed.model or DEFAULT_FAMILY, width, height, frames)
