"""``psa generate``, from the command line to the files on disk, with tiny random models of every family."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch

from psa_core import __version__

diffusers = pytest.importorskip("diffusers", minversion="0.35")
pytest.importorskip("transformers")
pytest.importorskip("peft")
iio = pytest.importorskip("imageio.v3")
pytest.importorskip("imageio_ffmpeg")

from psa_core.apps.generate.files import next_number, write_video  # noqa: E402

from ..support.generate_command import (  # noqa: E402
    FOLDERS,
    FOX,
    FRAMES,
    HEIGHT,
    PASSES,
    SPARSE,
    STEPS,
    WIDTH,
    Generate,
    errors,
)
from ..support.tiny_pipelines import LAYERS  # noqa: E402


@pytest.mark.parametrize("model", FOLDERS)
def test_every_family_dense_and_sparse(model: str, generate: Generate, capsys) -> None:
    assert generate.apart(model, "--preset", "baseline") == 0
    assert generate.apart(model, *SPARSE) == 0
    out = capsys.readouterr().out.splitlines()
    name = "01-a-red-fox-in-the-snow"
    assert generate.names() == [f"{name}.json"] * 2 + [f"{name}.mp4"] * 2
    for file in generate.output.rglob("*.mp4"):
        assert iio.imread(file, plugin="FFMPEG").shape == (FRAMES, HEIGHT, WIDTH, 3)
    dense, sparse = generate.documents()
    assert (dense["report"], dense["config"]["type"]) == (None, "dense")
    calls = LAYERS * PASSES[model]
    assert sparse["report"]["dense_calls"] == {"warm-up": calls}
    ran = [(call["step"], call["layer"]) for call in sparse["report"]["sparse_calls"]]
    assert sorted(ran) == sorted((s, n) for s in (1, 2) for n in range(LAYERS) for _ in range(PASSES[model]))
    assert 0 < sparse["report"]["density"] < 1
    assert out[0].startswith("01-a-red-fox-in-the-snow.mp4 | attention as it is | ")
    assert out[2].startswith(f"01-a-red-fox-in-the-snow.mp4 | {sparse['report_line']} | ")
    assert (out[1], out[3]) == tuple(f"1 of 1 video in {generate.output / run}" for run in ("01", "02"))
    first, second = generate.videos()
    assert first != second


def test_a_video_whose_name_cannot_be_printed_is_made_all_the_same(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert generate("Wan2.1_1.3b", "--preset", "baseline", prompt="雪地里的狐狸") == 0
    stdout.seek(0)
    assert stdout.read().endswith(f"1 of 1 video in {generate.output}\n")
    assert [document["prompt"] for document in generate.documents()] == ["雪地里的狐狸"]


def test_the_document_holds_every_setting(generate: Generate) -> None:
    words = ["--negative-prompt", "blur", "--guidance", "2.5", "--seed", "7", "--min-tokens", "1"]
    assert generate("Wan2.2_A14B", "--schedule", "warmup=1", "last_dense=1", "--radial", "mode=coarsen", *words) == 0
    (document,) = generate.documents()
    assert document["seconds"] > 0
    assert document["report_line"].startswith("PSA: ")
    config = document["config"]
    assert (config["min_tokens"], config["block_size"]["n"]) == (1, 32)
    assert (config["schedule"]["warmup"], config["schedule"]["last_dense"]) == (1, 1)
    assert config["radial"]["mode"] == "coarsen"
    for key in ("seconds", "report", "report_line", "config"):
        del document[key]
    assert document == {
        "prompt": FOX,
        "model": "Wan2.2_A14B",
        "path": str(generate.weights / "wan_2_2_a14b"),
        "negative_prompt": "blur",
        "image": None,
        "width": WIDTH,
        "height": HEIGHT,
        "frames": FRAMES,
        "steps": STEPS,
        "guidance": 2.5,
        "guidance_2": 2.5,
        "flow_shift": 3.0,
        "frames_per_second": 16,
        "seed": 7,
        "lora": None,
        "cpu_offload": False,
        "preset": "psa_balanced",
        "backend": "auto",
        "versions": {"psa": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
    }


def test_the_same_seed_gives_the_same_video_and_what_one_asks_for_changes_it(generate: Generate) -> None:
    for words in ([], [], ["--seed", "1"], ["--guidance", "1"], ["--negative-prompt", "blur and noise"]):
        assert generate.apart("Wan2.1_1.3b", *words, *SPARSE) == 0
    assert generate.apart("Wan2.1_1.3b", *SPARSE, prompt="Waves") == 0
    first, second, *others = generate.videos()
    assert first == second
    assert len({first, *others}) == 1 + len(others)


def test_schedule_and_radial_mask_arrive(generate: Generate) -> None:
    schedule = ["--schedule", "warmup=0", "last_dense=1", "dense_layers=0"]
    words = ["--backend", "torch", "--min-tokens", "0"]
    assert generate.apart("CogVideo_5b", *words, *schedule) == 0
    assert generate.apart("CogVideo_5b", *words, "--radial", "decay_factor=0.2") == 0
    scheduled, radial = (document["report"] for document in generate.documents())
    assert scheduled["dense_calls"] == {"last steps": LAYERS, "dense layer": STEPS - 1}
    assert [(call["step"], call["layer"]) for call in scheduled["sparse_calls"]] == [(0, 1), (1, 1)]
    # The mask decides alone and knows no warm-up.
    assert radial["dense_calls"] == {}
    assert len(radial["sparse_calls"]) == LAYERS * STEPS


def test_both_experts_run_sparse(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    forward = diffusers.WanTransformer3DModel.forward

    def counted(transformer, *args, **kwargs):
        ran.append(id(transformer))
        return forward(transformer, *args, **kwargs)

    monkeypatch.setattr(diffusers.WanTransformer3DModel, "forward", counted)
    assert generate("Wan2.2_A14B", "--backend", "torch", "--min-tokens", "0", "--schedule", "warmup=0") == 0
    assert len(set(ran)) == 2
    (document,) = generate.documents()
    assert document["report"]["dense_calls"] == {}
    assert len(document["report"]["sparse_calls"]) == LAYERS * len(ran) == LAYERS * 2 * STEPS
    assert (document["guidance"], document["guidance_2"]) == (4.0, 3.0)


def test_the_second_expert_has_a_guidance_of_its_own(generate: Generate) -> None:
    for words in ([], ["--guidance", "4"]):
        assert generate.apart("Wan2.2_A14B", "--preset", "baseline", *words) == 0
    own, same = generate.videos()
    assert own != same


@pytest.mark.parametrize("model", ["CogVideo_5b", "Wan2.2_A14B"])
def test_a_lora_changes_the_video_and_is_named(model: str, generate: Generate) -> None:
    lora = generate.weights / ("wan_lora" if model.startswith("Wan") else "cogvideox_lora")
    file = lora / "pytorch_lora_weights.safetensors"
    for words in ([], ["--lora", str(lora)], ["--lora", str(file)]):
        assert generate.apart(model, *SPARSE, *words) == 0
    without, folder, named = generate.videos()
    assert without != folder == named
    assert [document["lora"] for document in generate.documents()] == [None, str(lora), str(file)]


def test_both_experts_take_a_lora(generate: Generate) -> None:
    pipeline = generate.pipeline("Wan2.2_A14B", "--lora", str(generate.weights / "wan_lora"))
    first, second = pipeline.get_list_adapters().values()
    assert first == second
    assert len(first) == 1


@pytest.mark.parametrize(("model", "key"), [("Wan2.1_1.3b", "flow_shift"), ("Wan2.2_A14B", "shift")])
def test_the_scheduler_gets_the_flow_shift_of_the_size(model: str, key: str, generate: Generate) -> None:
    for size, shift in ((["--width", "832", "--height", "480"], 3.0), (["--width", "1280", "--height", "720"], 5.0)):
        assert generate.pipeline(model, *size).scheduler.config[key] == shift


def test_a_prompt_that_fails_does_not_stop_the_others(generate: Generate, capsys, monkeypatch) -> None:
    encode = diffusers.WanPipeline.encode_prompt

    def refuse(pipeline, prompt, *args, **kwargs):
        if "boom" in prompt:
            raise RuntimeError("out of words\nand more")
        return encode(pipeline, prompt, *args, **kwargs)

    monkeypatch.setattr(diffusers.WanPipeline, "encode_prompt", refuse)
    prompts = ["--prompt", "boom", "--prompt", "山の上の雲"]
    assert generate("Wan2.1_1.3b", *SPARSE, *prompts) == 1
    err = capsys.readouterr().err
    assert errors(err) == [
        "psa: prompt 2 failed: RuntimeError: out of words",
        "psa: 2 of 3 videos; failed: 2 (RuntimeError: out of words)",
    ]
    assert "1/3: 100%" in err
    assert "3/3: 100%" in err
    assert [name for name in generate.names() if name.endswith("mp4")] == [
        "01-a-red-fox-in-the-snow.mp4",
        "03-山の上の雲.mp4",
    ]
    # One that fails half way leaves no count to the next.
    assert [len(x["report"]["sparse_calls"]) for x in generate.documents()] == [2 * 2 * LAYERS] * 2


def test_counts_of_single_steps_are_those_of_their_own_prompt(generate: Generate) -> None:
    words = ["--backend", "torch", "--min-tokens", "0", "--schedule", "warmup=0", "--steps", "1"]
    assert generate("Wan2.1_1.3b", *words, "--prompt", "Waves") == 0
    assert [len(x["report"]["sparse_calls"]) for x in generate.documents()] == [2 * LAYERS] * 2


def test_an_interrupt_stops_the_run(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(diffusers.WanPipeline, "encode_prompt", interrupt)
    assert generate("Wan2.1_1.3b", "--prompt", "Waves") == 130
    assert generate.names() == []


def test_nothing_is_overwritten(generate: Generate) -> None:
    generate.output.mkdir(parents=True)
    taken = generate.output / "07-mine.json"
    taken.write_text("mine")
    words = ["--preset", "baseline", "--steps", "1"]
    assert generate("CogVideo_2b", *words) == 0
    assert generate("CogVideo_2b", *words, prompt="Waves") == 0
    assert {name[:3] for name in generate.names()} == {"07-", "08-", "09-"}
    assert taken.read_text() == "mine"
    assert next_number(generate.output) == 10
    # Another run has taken the name since.
    before = generate.videos()
    frames = iio.imread(next(generate.output.glob("08-*.mp4")), plugin="FFMPEG") / 255.0
    assert write_video(generate.output, 8, FOX, frames, 8).name == "09-a-red-fox-in-the-snow.mp4"
    assert [video for video in generate.videos() if video in before] == before


def test_a_video_of_every_prompt_in_a_file(generate: Generate, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("One fox\n\n# no prompt\nTwo foxes\n")
    assert generate("CogVideo_2b", "--preset", "baseline", "--prompt-file", str(file), prompt="") == 0
    assert [document["prompt"] for document in generate.documents()] == ["One fox", "Two foxes"]


@pytest.mark.gpu
@pytest.mark.parametrize("words", [[], ["--cpu-offload"]])
@pytest.mark.parametrize("model", FOLDERS)
def test_on_a_gpu(model: str, words: list[str], generate: Generate) -> None:
    assert generate(model, *SPARSE, *words) == 0
    (document,) = generate.documents()
    assert len(document["report"]["sparse_calls"]) == 2 * LAYERS * PASSES[model]
