"""``psa generate`` and ``compare`` with MiniMax H3, which diffusers has as a modular pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

diffusers = pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")
Image = pytest.importorskip("PIL.Image")

from psa_core.apps.cli import main  # noqa: E402
from psa_core.apps.generate import generating  # noqa: E402

from ..support import tiny_h3  # noqa: E402
from ..support.generate_command import FOX, errors  # noqa: E402

FRAMES, STEPS = 124, 4
SPARSE = ["--backend", "torch", "--min-tokens", "0", "--steps", str(STEPS), "--width", "64", "--height", "64"]
# Diffusers counts the end as a step, too.
PASSES = STEPS - 1

HAS_H3 = hasattr(diffusers, "MiniMaxH3ModularPipeline")
has_h3 = pytest.mark.skipif(not HAS_H3, reason="this diffusers has no MiniMax H3")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny_h3.save(folder / "h3")
    tiny_h3.save_lora(folder / "lora")
    return folder


@has_h3
def test_a_folder_as_the_model(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", FOX, "--model", str(weights / "h3"), "--output", str(tmp_path), *SPARSE]
    assert main([*words, "--quality", "balanced", "--precision", "bf16"]) == 0
    (document,) = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert (document["model"], document["preset"], document["frames"]) == ("MiniMax_H3", "auto_balanced", FRAMES)
    report = document["report"]
    assert len(report["sparse_calls"]) + sum(report["dense_calls"].values()) == PASSES * tiny_h3.LAYERS
    assert report["dense_calls"].keys() == {"warm-up"}
    (video,) = tmp_path.glob("*.mp4")
    assert iio.imread(video, plugin="FFMPEG").shape == (FRAMES, 64, 64, 3)
    bar = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert "1/1: 100%" in bar
    assert f"{PASSES}/{PASSES}" in bar
    assert "density so far" in bar


@has_h3
def test_a_name_with_a_picture_and_a_lora(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, loaded = tmp_path / "odd.png", []
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 91, 3), dtype=np.uint8)).save(picture)
    load = generating.load_pipeline
    monkeypatch.setattr(generating, "load_pipeline", lambda settings: loaded.append(load(settings)) or loaded[-1])
    words = ["generate", "--model", "MiniMax_H3", "--path", str(weights / "h3"), *SPARSE]
    with_picture = ["--image", str(picture), "--lora", f"{weights / 'lora'}:0.5"]
    assert main([*words, FOX, *with_picture, "--output", str(tmp_path / "picture"), "--preset", "baseline"]) == 0
    assert loaded[0].transformer.active_adapters() == ["psa_0"]
    assert next(x.scaling for x in loaded[0].transformer.modules() if hasattr(x, "scaling")) == {"psa_0": 0.5}
    assert main([*words, FOX, "--output", str(tmp_path / "text"), "--preset", "baseline"]) == 0
    assert main([*words, FOX, "--output", str(tmp_path / "again"), "--preset", "baseline"]) == 0
    videos = [next((tmp_path / name).glob("*.mp4")).read_bytes() for name in ("picture", "text", "again")]
    assert videos[0] != videos[1] == videos[2]


@pytest.mark.gpu
@has_h3
@pytest.mark.parametrize("words", [[], ["--cpu-offload"]])
def test_on_a_gpu(weights: Path, tmp_path: Path, words: list[str]) -> None:
    command = ["generate", FOX, "--model", str(weights / "h3"), "--output", str(tmp_path), "--quality", "fast"]
    assert main([*command, *SPARSE, *words]) == 0
    (document,) = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert len(document["report"]["sparse_calls"]) == (PASSES - 1) * tiny_h3.LAYERS


@has_h3
def test_compare(weights: Path, tmp_path: Path) -> None:
    for package in ("skimage", "matplotlib", "jinja2"):
        pytest.importorskip(package)
    words = ["--model", str(weights / "h3"), "--output", str(tmp_path), "--quality", "fast", *SPARSE]
    assert main(["compare", FOX, *words, "--precision", "bf16"]) == 0
    (clip,) = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))["clips"]
    assert [take["preset"] for take in clip["takes"]] == ["dense", "auto_fast"]
    # Nearly all of its tokens are sound, which is dense.
    assert 0 < clip["takes"][1]["density"] <= 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--guidance", "5"], "--guidance = 5.0: leave it out: MiniMax_H3 has guidance in its weights"),
        (["--negative-prompt", "rain"], "--negative-prompt = 'rain': leave it out: MiniMax_H3 has guidance in its wei"),
        (["--steps", "1"], "--steps = 1: must be 2 or more for MiniMax_H3, whose last step is its end"),
        (["--frames", "121"], "--frames = 121: must be a multiple of 17 and 5 more: 124, 141, 158 ... 345"),
        (["--frames", "107"], "--frames = 107: must be a multiple of 17 and 5 more: 124, 141, 158 ... 345"),
        (["--frames", "362"], "--frames = 362: must be a multiple of 17 and 5 more: 124, 141, 158 ... 345"),
        (["--width", "720"], "--width = 720: must be a multiple of 32, 64 or more, for MiniMax_H3"),
    ],
)
def test_what_a_user_can_set_right(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", FOX, "--model", "MiniMax_H3", *words]) == 2
    (line,) = errors(capsys.readouterr().err)
    assert line.startswith(f"psa: {error}")


@has_h3
def test_folders_that_are_not_right(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, other = tmp_path / "broken", tmp_path / "other"
    shutil.copytree(weights / "h3", broken)
    (broken / "vae" / "config.json").write_text("{}", encoding="utf-8")
    other.mkdir()
    (other / "modular_model_index.json").write_text('{"_class_name": "WanModularPipeline"}', encoding="utf-8")
    empty = tmp_path / "empty"
    empty.mkdir()
    for words in (["--model", str(broken)], ["--model", str(other)], ["--model", "MiniMax_H3", "--path", str(empty)]):
        assert main(["generate", FOX, *words, *SPARSE, "--output", str(tmp_path / "output")]) == 2
    no_part, no_family, no_index = errors(capsys.readouterr().err)
    assert no_part.startswith(f"psa: --path = '{broken}': does not load: ValueError: Unable to load vae")
    held = "holds a WanModularPipeline; of modular pipelines, these make videos here: MiniMax_H3"
    assert no_family == f"psa: --model = '{other}': {held}"
    assert no_index.endswith("diffusers format, and empty/modular_model_index.json cannot be read")


@pytest.mark.skipif(HAS_H3, reason="this diffusers has MiniMax H3")
def test_an_older_diffusers_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", FOX, "--model", "MiniMax_H3", "--output", str(tmp_path)]) == 2
    (line,) = errors(capsys.readouterr().err)
    assert line == f"psa: --model = 'MiniMax_H3': diffusers {diffusers.__version__} has no MiniMaxH3ModularPipeline"
