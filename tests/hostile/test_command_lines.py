"""Command lines: options of any text are read, or end in one line and exit code 2."""

from __future__ import annotations

import argparse
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from psa_core.apps import cli
from psa_core.apps.compare.command import read_settings as read_compare
from psa_core.apps.demo import read_settings as read_demo
from psa_core.apps.generate.command import read_settings as read_generate

from .outcome import refused_or_taken
from .strategies import LETTERS, NEARLY

TEXTS = st.one_of(NEARLY, LETTERS, st.integers().map(str), st.just("1" * 5000))
KEYS = ("warmup", "last_dense", "dense_layers", "curve", "start", "steps", "start_percent")
RADIAL = ("mode", "decay_factor", "dense_layers", "scene_boundaries", "scene_adjacency", "block_size")
NUMBERS = ("--width", "--height", "--frames", "--steps")
READ = {"generate": read_generate, "compare": read_compare, "demo": read_demo}


@st.composite
def lines(draw: st.DrawFn, command: str) -> list[str]:
    line = [command]
    if command != "demo":
        line += ["--model", draw(st.one_of(st.just("tiny_video"), TEXTS)), f"--prompt={draw(TEXTS)}"]
        line += [f"--{'preset' if command == 'generate' else 'presets'}={draw(TEXTS)}"] * draw(st.booleans())
    line += [f"{option}={draw(TEXTS)}" for option in draw(st.lists(st.sampled_from(NUMBERS), max_size=2))]
    for option, keys in (("--schedule", KEYS), ("--radial", RADIAL)):
        if draw(st.booleans()):
            line += [
                option,
                *(f"{key}={draw(TEXTS)}" for key in draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2))),
            ]
    return line


@pytest.mark.parametrize("command", READ)
@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_options_are_read_or_refused(command: str, data: st.DataObject) -> None:
    line = data.draw(lines(command))
    with refused_or_taken():
        parsed = parse(line)
        if parsed is not None:
            READ[command](parsed)


def parse(line: list[str]) -> argparse.Namespace | None:
    """The options; None where argparse has said what is wrong and ended with 2, as every command does."""
    try:
        return cli._parser().parse_args(line)
    except SystemExit as end:
        return None if end.code == 2 else pytest.fail(f"exit code {end.code}")


@hypothesis.settings(max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(model=TEXTS, path=TEXTS)
def test_lists_of_presets(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, path: str) -> None:
    hypothesis.assume("\0" not in path)
    code = cli.main(["presets", f"--model={model}", f"--path={tmp_path / 'none' / path.strip('/.')}"])

    assert code == 2
    said = capsys.readouterr().err
    assert said.startswith("psa: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["generate", "compare"])
def test_a_prompt_that_no_file_can_hold_is_refused_before_anything_runs(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    code = cli.main([command, "--model", "Wan2.1_1.3b", "--prompt", "bad \udcff", "--output", str(output)])

    assert code == 2
    assert "--prompt = 'bad \\udcff': must be text" in capsys.readouterr().err
    assert not output.exists()
