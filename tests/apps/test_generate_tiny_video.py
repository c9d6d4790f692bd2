"""``psa generate`` and ``psa compare`` with the tiny model that comes with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers", minversion="0.35")
for module in ("transformers", "ftfy", "imageio_ffmpeg", "matplotlib", "skimage", "jinja2"):
    pytest.importorskip(module)

from psa_core.apps.cli import main  # noqa: E402

LAYERS, GUIDED = 12, 2
SMALL = ["--width", "96", "--height", "64", "--frames", "5", "--steps", "3", "--backend", "torch"]


def run(command: str, output: Path, *words: str, prompt: str = "a blue star") -> int:
    return main([command, "--model", "tiny_video", "--prompt", prompt, "--output", str(output), *SMALL, *words])


def test_a_video_with_nothing_to_download(tmp_path: Path) -> None:
    assert run("generate", tmp_path) == 0
    (file,) = tmp_path.glob("*.json")
    document = json.loads(file.read_text())
    assert (document["model"], document["preset"]) == ("tiny_video", "psa_balanced")
    assert len(document["report"]["sparse_calls"]) == LAYERS * GUIDED
    assert (tmp_path / "01-a-blue-star.mp4").stat().st_size > 500


def test_presets_are_compared(tmp_path: Path) -> None:
    assert run("compare", tmp_path, "--presets", "psa_topk", "radial_short", "--no-errors") == 0
    rows = {row["preset"]: row for row in json.loads((tmp_path / "compare.json").read_text())["summary"]}
    assert set(rows) >= {"psa_topk", "radial_short"}
    assert 0 < rows["psa_topk"]["density"] < 1


@pytest.mark.parametrize(
    ("words", "prompt", "error"),
    [
        ([], "a red dog", "--prompt: word = 'dog': the tiny model knows the words "),
        (["--negative-prompt", "blurry"], "a star", "--negative-prompt: word = 'blurry': the tiny model knows "),
        (["--path", "weights"], "a star", "--path = 'weights': the weights of tiny_video are in this package"),
    ],
)
def test_what_a_user_can_set_right_is_one_line_and_exit_code_2(capsys, tmp_path, words, prompt, error) -> None:
    assert run("generate", tmp_path / "new", *words, prompt=prompt) == 2
    assert capsys.readouterr().err.startswith(f"psa: {error}")
    assert not (tmp_path / "new").exists()
