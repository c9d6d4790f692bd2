"""``psa generate`` with folders of the other families, recognised by what they hold; from pictures; and LoRAs."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")
Image = pytest.importorskip("PIL.Image")

import diffusers  # noqa: E402

from psa_core import ConfigError  # noqa: E402
from psa_core.apps.cli import main  # noqa: E402
from psa_core.apps.generate import generating  # noqa: E402
from psa_core.apps.generate.choose_model import choose_model  # noqa: E402
from psa_core.apps.generate.command import add_options, read_settings  # noqa: E402
from psa_core.apps.generate.picture import read_picture, size_like  # noqa: E402

from ..support import tiny_families  # noqa: E402
from ..support.generate_command import FOX, Generate, errors  # noqa: E402

STEPS = 3
SPARSE = ["--backend", "torch", "--min-tokens", "0", "--steps", str(STEPS)]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Twice as wide as high."""
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 64, 3), dtype=np.uint8)).save(file)
    return file


@pytest.mark.parametrize(
    ("family", "name", "pipeline", "image"),
    [
        ("wan_vace", "Wan2.1_1.3b_VACE", "WanVACEPipeline", False),
        ("wan_image", "Wan2.1_14b_I2V", "WanImageToVideoPipeline", True),
        ("skyreels_v2", "SkyReels_V2_14b", "SkyReelsV2Pipeline", False),
        ("ltx", "LTX-Video", "LTXPipeline", False),
        ("ltx", "LTX-Video", "LTXImageToVideoPipeline", True),
        ("ltx_condition", "LTXConditionPipeline", "LTXConditionPipeline", False),
        ("hunyuan_video", "HunyuanVideo", "HunyuanVideoPipeline", False),
        ("mochi", "Mochi", "MochiPipeline", False),
    ],
)
def test_a_folder_as_the_model(
    family, name, pipeline, image, tmp_path: Path, picture: Path, monkeypatch, capsys
) -> None:
    if not hasattr(diffusers, pipeline):
        pytest.skip(f"this diffusers has no {pipeline}")
    folder, output, made = tmp_path / family, tmp_path / "output", []
    getattr(tiny_families, family)().save_pretrained(folder)
    call = getattr(diffusers, pipeline).__call__
    monkeypatch.setattr(getattr(diffusers, pipeline), "__call__", keeping_signature(call, made))
    frames = 7 if family == "mochi" else 9
    words = ["--image", str(picture)] if image else ["--width", "64", "--height", "64"]
    size = ["--frames", str(frames), "--quality", "balanced", *words]
    if image:
        size += ["--width", "128", "--height", "64"]
    assert main(["generate", FOX, "--model", str(folder), "--output", str(output), *SPARSE, *size]) == 0
    (document,) = [json.loads(file.read_text()) for file in output.glob("*.json")]
    assert (document["model"], document["path"], document["preset"]) == (name, str(folder), "auto_balanced")
    assert document["image"] == (str(picture) if image else None)
    assert document["report"]["sparse_calls"]
    assert document["report"]["dense_calls"].keys() == {"warm-up"}
    (video,) = output.glob("*.mp4")
    assert iio.imread(video, plugin="FFMPEG").shape == (frames, 64, 128 if image else 64, 3)
    assert len(made) == 1
    if image:
        assert made[0]["image"].size == (128, 64)
    # Steps, density and time on the bar.
    bar = capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert f"{STEPS}/{STEPS}" in bar
    assert "density so far" in bar


def keeping_signature(call: Any, made: list[dict[str, Any]]) -> Any:
    """A call of a pipeline that takes note of what it is given."""

    @functools.wraps(call)
    def noted(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(kwargs)
        return call(pipeline, *args, **kwargs)

    return noted


def test_models_are_told_by_name_hub_id_or_folder(tmp_path: Path, weights: Path) -> None:
    assert choose_model("LTX-2", None)[::2] == ("LTX-2", "Lightricks/LTX-2")
    assert choose_model("genmo/mochi-1-preview", "mine")[::2] == ("Mochi", "mine")
    for folder, name in (
        ("wan_2_1", "Wan2.1_1.3b"),
        ("wan_2_2_5b", "Wan2.2_5B"),
        ("wan_2_2_a14b", "Wan2.2_A14B"),
        ("cogvideox_2b", "CogVideo_2b"),
        ("cogvideox1_5", "CogVideo1.5_5b"),
    ):
        assert choose_model(str(weights / folder), None).name == name
        assert choose_model(None, str(weights / folder)).name == name
    other = tmp_path / "other"
    other.mkdir()
    (other / "model_index.json").write_text('{"_class_name": "AllegroPipeline"}')
    chosen = choose_model(str(other), None)
    assert (chosen.name, chosen.presets, chosen.facts.pipeline) == ("AllegroPipeline", "Any", "AllegroPipeline")
    # Sizes that nobody has asked for are the pipeline's own.
    parser = argparse.ArgumentParser()
    add_options(parser)
    settings = read_settings(parser.parse_args([FOX, "--model", str(other)]))
    assert (settings.width, settings.height, settings.frames) == (0, 0, 0)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--model", "Wan2.2_A14B_I2V"], "--image = None: Wan2.2_A14B_I2V makes videos from a picture: give one"),
        (["--model", "Mochi", "--image", "{picture}"], "--image = '{picture}': Mochi takes no picture; these do: Wan"),
        (["--model", "LTX-Video", "--image", "/no/such"], "--image = '/no/such': cannot be read as a picture: "),
        (["--model", "LTX-Video", "--frames", "13"], "--frames = 13: must be a multiple of 8 and one more: 9, 17, 25"),
        (["--model", "Mochi", "--frames", "9"], "--frames = 9: must be a multiple of 6 and one more: 7, 13, 19 ..."),
        (
            ["--model", "Wan2.1_14b", "--lora", "high={picture}"],
            "--lora = 'high={picture}': leave out high=: the model",
        ),
        (["--model", "Wan2.2_A14B", "--lora", "low=/no"], "--lora = 'low=/no': must be a .safetensors file, or a fold"),
        ([], "--model = None: must be one of Wan2.1_1.3b, "),
        (["--path", "/no/such"], "--path = '/no/such': is no folder with a model of diffusers; of a hub id, "),
        (
            ["--model", "{folder}"],
            "--model = '{folder}': is a folder without model_index.json or ",
        ),
        (
            ["--path", "{folder}"],
            "--path = '{folder}': is a folder without model_index.json or ",
        ),
    ],
)
def test_what_a_user_can_set_right(words: list[str], error: str, picture: Path, capsys) -> None:
    there = {"picture": picture, "folder": picture.parent}
    assert main(["generate", FOX, *(word.format(**there) for word in words)]) == 2
    (line,) = errors(capsys.readouterr().err)
    assert line.startswith(f"psa: {error.format(**there)}")


def test_the_nearest_name_is_said(weights: Path) -> None:
    for given, name in (("wan2.1_1.3B", "Wan2.1_1.3b"), ("MiniMax-H3", "MiniMax_H3"), ("CogVideoX_5b", "CogVideo_5b")):
        with pytest.raises(ConfigError, match=f"or a folder with a model of diffusers; the nearest name is {name}$"):
            choose_model(given, None)
    with pytest.raises(ConfigError, match=r"or a folder with a model of diffusers$"):
        choose_model("Flux", None)
    folder = str(weights / "wan_2_1")
    with pytest.raises(ConfigError, match=r"must not stand beside a folder as --model: leave one of them out$"):
        choose_model(folder, folder)


def test_the_size_goes_by_the_picture(picture: Path) -> None:
    assert size_like(picture, 832, 480, 16) == (896, 448)
    assert size_like(picture, 704, 480, 32) == (832, 416)
    assert read_picture(picture, 96, 96).size == (96, 96)


def test_a_lora_and_a_strength_for_each_expert(generate: Generate, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    lora, loaded = generate.weights / "wan_lora", []
    load = generating.load_pipeline
    monkeypatch.setattr(generating, "load_pipeline", lambda settings: loaded.append(load(settings)) or loaded[0])
    words = [f"high={lora}:0.8", f"low={lora}", f"{lora}:0.5"]
    assert generate("Wan2.2_A14B", "--preset", "baseline", "--steps", "1", "--lora", *words) == 0
    for expert, strengths in (("transformer", {0: 0.8, 2: 0.5}), ("transformer_2", {1: 1.0, 2: 0.5})):
        adapters = {f"psa_{number}": strength for number, strength in strengths.items()}
        found = getattr(loaded[0], expert)
        assert set(found.peft_config) == set(found.active_adapters()) == set(adapters)
        assert next(module.scaling for module in found.modules() if hasattr(module, "scaling")) == adapters
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith(" | LoRA wan_lora at 0.5 in both experts")
    assert [document["lora"] for document in generate.documents()] == [words]
