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


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``psa doctor``."""
    parser.add_argument(
        "--measure", action="store_true", help="also this card's dense attention beside PSA, in under a minute"
    )
    measured = parser.add_argument_group("what --measure measures")
    measured.add_argument("--model", default=DEFAULT_FAMILY, help=f"as psa presets names it; default: {DEFAULT_FAMILY}")
    for name, default, what in (("width", 832, "pixels"), ("height", 480, "pixels"), ("frames", 81, "of the video")):
        measured.add_argument(f"--{name}", type=_whole, default=default, help=f"{what}; default: {default}")
    measured.add_argument("--json", type=Path, metavar="FILE", help="write all of it as JSON; - for stdout, alone")
    parser.set_defaults(run=run_command)


def run_command(parsed: argparse.Namespace) -> None:
    """What ``psa doctor`` does.

    Raises:
        ConfigError: no such model, or --json without --measure.
        OSError: the file cannot be written.
    """
    if not parsed.measure:
        if parsed.json is not None:
            raise ConfigError("--json", str(parsed.json), "needs --measure beside it")
        print("\n".join(as_lines(findings())))
        return
    clip = Clip.of(parsed.model, parsed.width, parsed.height, parsed.frames)
    diagnosis = diagnose(clip, progress=_show)
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


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
