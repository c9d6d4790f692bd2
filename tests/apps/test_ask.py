"""``psa ask``: frames of files and folders, and a question to a tiny random model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BatchFeature

from psa_core.apps.ask import asking, command
from psa_core.apps.ask.asking import Answer, _agreement
from psa_core.apps.ask.frames import read_frames
from psa_core.apps.cli import main
from psa_core.report.videos import write_video
from psa_core.settings.errors import ConfigError

from ..support.language_models import prompt, qwen2_5_vl


class Processor:
    """In place of the model's own, which is a download: a video of 16 x 16 patches and some words."""

    def apply_chat_template(self, chat: Any, **_options: Any) -> str:
        return chat[0]["content"][1]["text"]

    def __call__(self, *, text: list[str], videos: list[np.ndarray], **_options: Any) -> BatchFeature:
        self.asked, self.frames = text, len(videos[0])
        return BatchFeature(prompt(200, video=(1, 16, 16)))

    def decode(self, tokens: list[int], **_options: Any) -> str:
        return " ".join(map(str, tokens))


def pictures(folder: Path, count: int) -> Path:
    for i in range(count):
        Image.fromarray(np.full((8, 12, 3), 10 * i, np.uint8)).save(folder / f"{i:03}.png")
    return folder


def test_frames_of_a_folder_are_spread_evenly(tmp_path: Path) -> None:
    frames = read_frames(pictures(tmp_path, 8), 4)
    assert frames.pixels[:, 0, 0, 0].tolist() == [10, 30, 50, 70]
    assert len(read_frames(tmp_path, 100).pixels) == 8


def test_frames_of_a_file_are_spread_evenly(tmp_path: Path) -> None:
    shades = np.stack([np.full((64, 96, 3), 20 * i, np.uint8) for i in range(10)])
    write_video(tmp_path / "clip.mp4", shades, 5)
    frames = read_frames(tmp_path / "clip.mp4", 5)
    assert frames.pixels.shape == (5, 64, 96, 3)
    assert np.abs(frames.pixels.mean((1, 2, 3)) - [20, 60, 100, 140, 180]).max() < 8
    assert frames.rate == pytest.approx(2.5, rel=0.1)


def test_what_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold pictures"):
        read_frames(tmp_path, 4)
    (tmp_path / "words.mp4").write_text("no video")
    with pytest.raises(ConfigError, match="cannot be read as a video"):
        read_frames(tmp_path / "words.mp4", 4)


def given(monkeypatch: pytest.MonkeyPatch, model: Any, processor: Any) -> None:
    """Have this model loaded, whatever ``--model`` says."""
    monkeypatch.setattr(asking, "load", lambda path: (model, processor))
    monkeypatch.setattr(asking, "read_family", lambda path: "Qwen2.5-VL")
    monkeypatch.setattr(command, "need", lambda *packages: None)


def test_dense_and_sparse_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = qwen2_5_vl(), Processor()
    given(monkeypatch, model, processor)
    options = ["--backend", "torch", "--min-tokens", "0", "--tokens", "3", "--frames", "4"]
    assert main(["ask", str(pictures(tmp_path, 6)), "What happens?", "--model", "tiny", *options]) == 0
    out, progress = capsys.readouterr()
    assert (processor.asked, processor.frames) == (["What happens?"], 4)
    assert "4 frames, 200 tokens in the prompt" in out
    assert "the answers agree" in out or "the answers differ from token" in out
    assert "2 sparse, 4 dense (decoding 4)" in out
    assert "200 tokens with PSA attention" in progress
    assert model.config.get_text_config()._attn_implementation == "sdpa"


def test_where_answers_differ() -> None:
    assert _agreement([1, 2], [1, 2]) == "the answers agree"
    assert _agreement([1, 2, 3], [1, 4]) == "the answers differ from token 2 on"
    assert _agreement([1, 2, 3], [1, 2]) == "the answers differ from token 3 on"
    assert Answer([1], 1.0, 2.0).line == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no.mp4", "What?"], "psa: video = 'no.mp4': there is no such file or folder"),
        ([".", "What?", "--frames", "1"], "psa: --frames = 1: must be 2 or more"),
    ],
)
def test_bad_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_preset_is_looked_up_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, None, None)
    monkeypatch.setattr(asking, "load", lambda path: pytest.fail("loaded"))
    assert main(["ask", str(pictures(tmp_path, 2)), "What?", "--preset", "fast"]) == 2
    assert "psa: --preset = 'fast': Qwen2.5-VL has baseline, psa_topk" in capsys.readouterr().err


class Never(Processor):
    def __call__(self, **_options: Any) -> BatchFeature:
        raise ValueError("no videos, please\nat all")


@pytest.mark.parametrize(
    ("model", "processor", "message"),
    [
        (qwen2_5_vl, Never, "--model = 'x': cannot be asked that about this video: ValueError: no videos, please\n"),
        (lambda: torch.nn.Linear(1, 1), Processor, "--model = 'x': cannot be asked that about this video"),
        (qwen2_5_vl, Processor, "--frames = 128: make 200 tokens, for which the GPU's memory is too small: take fewer"),
    ],
)
def test_models_that_cannot_be_asked(
    model: Any, processor: Any, message: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    given(monkeypatch, model(), processor())
    monkeypatch.setattr(asking, "_answer", full)
    assert main(["ask", str(pictures(tmp_path, 2)), "What?", "--model", "x"]) == 2
    assert f"psa: {message}" in capsys.readouterr().err


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model = .* does not load"):
        asking.read_family(str(tmp_path))
    with pytest.raises(ConfigError, match=r"--model = .* does not load"):
        asking.load(str(tmp_path))
    assert not torch.is_inference_mode_enabled()
