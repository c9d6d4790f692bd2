"""The ``psa`` command."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import __version__
from ..ops.backends import BackendError
from ..settings.errors import ConfigError
from ..settings.words import one_line
from .ask.command import add_options as add_ask_options
from .bench.checks import WrongResultError
from .bench.command import add_options as add_bench_options
from .compare.command import add_options as add_compare_options
from .demo import add_options as add_demo_options
from .doctor.command import add_options as add_doctor_options
from .generate.command import add_options as add_generate_options
from .generate.errors import FailedPromptsError
from .preset_table import preset_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``psa`` with these arguments, by default the command line's.

    Returns:
        The exit code: 0; 2 when the user has something to set right, which stderr then says in one line; 1 when a
        benchmark finds a wrong result, or when prompts or parts of a comparison have failed.
    """
    parsed = _parser().parse_args(arguments)
    parsed.arguments = sys.argv[1:] if arguments is None else list(arguments)
    with _log_to_stderr(), _any_letters_to_stdout():
        try:
            parsed.run(parsed)
        except (ConfigError, BackendError, OSError, ImportError) as error:
            print(f"psa: {one_line(str(error))}", file=sys.stderr)
            return 2
        except (WrongResultError, FailedPromptsError) as error:
            print(f"psa: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="psa", description="Pyramid Sparse Attention for video models.")
    parser.add_argument("--version", action="version", version=f"psa {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="a tiny video with dense attention and with PSA, on a CPU")
    add_demo_options(demo)

    generate = commands.add_parser("generate", help="videos from prompts and pictures, with models of diffusers")
    add_generate_options(generate)

    compare = commands.add_parser("compare", help="the same videos dense and with several presets, and how they differ")
    add_compare_options(compare)

    ask = commands.add_parser("ask", help="a question about a video, with dense attention and with PSA")
    add_ask_options(ask)

    bench = commands.add_parser("bench", help="PSA against dense attention on this GPU")
    add_bench_options(bench)

    presets = commands.add_parser("presets", help="the presets by model")
    presets.add_argument("--model", help="only this model's")
    presets.add_argument("--path", type=Path, help="a preset file, or a folder of them; default: bundled and your own")
    presets.set_defaults(run=_presets)

    doctor = commands.add_parser("doctor", help="whether the kernels can run here, if not, why, and how fast they are")
    add_doctor_options(doctor)
    return parser


class _Formatter(logging.Formatter):
    """The command's name in front of each message, in place of that which ComfyUI's log has there."""

    def format(self, record: logging.LogRecord) -> str:
        return f"psa: {super().format(record).removeprefix('PSA: ')}"


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show the package's warnings, such as odd keys in preset files, the way the command speaks."""
    logger, handler = logging.getLogger(__name__.partition(".apps")[0]), logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _any_letters_to_stdout() -> Iterator[None]:
    """Escape letters that stdout's encoding lacks, such as a prompt's, as stderr does anyway."""
    stdout = sys.stdout
    # What takes its place in notebooks knows every letter.
    if not isinstance(stdout, io.TextIOWrapper):
        yield
        return
    before = stdout.errors
    stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stdout.reconfigure(errors=before)


def _presets(parsed: argparse.Namespace) -> None:
    print(preset_table(parsed.model, parsed.path))
