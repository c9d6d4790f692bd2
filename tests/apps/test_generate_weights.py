"""``psa generate``: weights, LoRAs and machines that are not what they should be."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("imageio_ffmpeg")
huggingface_hub = pytest.importorskip("huggingface_hub")
safetensors_torch = pytest.importorskip("safetensors.torch")

from ..support.generate_command import Generate, errors  # noqa: E402


def break_file(name: str, text: str | None) -> Any:
    """What overwrites a file of a folder, or takes it away."""

    def change(folder: Path) -> None:
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (break_file("model_index.json", None), "must hold weights of zai-org/CogVideoX-2b in diffusers format, and "),
        (break_file("model_index.json", "[]"), "must hold weights of zai-org/CogVideoX-2b in diffusers format, and "),
        (break_file("model_index.json", '{"_class_name": "WanPipeline"}'), "must hold a CogVideoXPipeline for CogVid"),
        (break_file("transformer/config.json", "{"), "does not load: "),
        (break_file("transformer/diffusion_pytorch_model.safetensors", "damaged"), "does not load: "),
        (break_file("vae/diffusion_pytorch_model.safetensors", None), "does not load: "),
        (lambda folder: shutil.rmtree(folder / "text_encoder"), "does not load: "),
    ],
)
def test_a_folder_that_is_not_right(change: Any, error: str, generate: Generate, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(generate.weights / "cogvideox_2b", folder)
    change(folder)
    assert generate("CogVideo_2b", "--path", str(folder)) == 2
    (line,) = errors(capsys.readouterr().err)
    assert line.startswith(f"psa: --path = '{folder}': {error}")
    assert generate.names() == []


@pytest.mark.parametrize(
    ("model", "words", "error"),
    [
        ("Wan2.2_A14B", ["--path", "{weights}/wan_2_1"], "--path = .*: Wan2.2_A14B does not have 1 expert"),
        ("Wan2.1_14b", ["--path", "{weights}/wan_2_2_a14b"], "--path = .*: Wan2.1_14b does not have 2 experts"),
        (
            "Wan2.1_14b",
            ["--path", "./none"],
            "--path = './none': there is no such folder; .*`hf download Wan-AI/Wan2.1",
        ),
        (
            "Wan2.1_14b",
            ["--path", "a/b"],
            "--path = 'a/b': is no folder here, .*not give it .OfflineMode.*`hf download Wan",
        ),
        ("CogVideo_5b", ["--lora", "{weights}/wan_lora"], "--lora = .*: does not load: .*Error: "),
        ("CogVideo_5b", ["--lora", "{weights}/other"], "--lora = .*: holds nothing for a CogVideoXTransformer3DModel$"),
        ("CogVideo_5b", ["--backend", "triton"], "backend = 'triton': head size 16"),
        ("CogVideo_5b", ["--cpu-offload"], "--cpu-offload = True: needs a GPU"),
        ("CogVideo_5b", ["--output", "{weights}/other/other.safetensors/x"], "--output = .*: cannot be written"),
    ],
)
def test_what_a_user_can_set_right(model, words, error, generate: Generate, capsys, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    other = generate.weights / "other"
    other.mkdir(exist_ok=True)
    safetensors_torch.save_file({"text_encoder.q.lora_A.weight": torch.zeros(2, 2)}, other / "other.safetensors")
    assert generate(model, *(word.format(weights=generate.weights) for word in words)) == 2
    (line,) = errors(capsys.readouterr().err)
    assert re.match(f"psa: {error}", line)
    assert len(line) < 500
    assert not list(generate.output.glob("*"))
