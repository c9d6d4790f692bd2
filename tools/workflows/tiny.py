"""The bundled tiny model: nothing to download, and a CPU will do."""

from __future__ import annotations

from typing import Any

from .canvas import Canvas, Output, Workflow
from .columns import compare, sample_and_save
from .parts import Prompts, empty_video, patch

FPS = 8
SIZE = (384, 320, 33)
HOW: dict[str, Any] = {"seed": 2, "steps": 6, "cfg": 4.0, "sampler": "euler"}
TEXT, OTHER_TEXT = "a red circle moving left over gray stripes", "a blue star turning over navy stripes"
WORDS = "Prompts are words that it knows: Tiny Video Prompt lists them in its help, and refuses others."


def _load(canvas: Canvas) -> tuple[Output, Output]:
    canvas.group("Model")
    model = canvas.add("PSATinyVideoModel")
    return model, model.other(1)


def _psa(canvas: Canvas, model: Output, **inputs: Output) -> Output:
    canvas.group("PSA")
    # Plain torch runs on any machine, and sparse though the clip is too short to gain from it.
    return patch(canvas, model, backend="torch", min_tokens=1, **inputs)


def _prompts(canvas: Canvas, text: str = TEXT) -> Prompts:
    canvas.group("Prompt and size")
    return (
        canvas.add("PSATinyVideoPrompt", "Prompt", text=text),
        canvas.add("PSATinyVideoPrompt", "Negative prompt (empty)", text=""),
    )


def _tiny(canvas: Canvas) -> None:
    model, vae = _load(canvas)
    _sample_and_show(canvas, _psa(canvas, model), vae, "psa_tiny", TEXT)


def _tiny_calibration(canvas: Canvas) -> None:
    model, vae = _load(canvas)
    # On the first run there is nothing to load.
    loaded = canvas.add("PSALoadCalibration", calibration="mine", otherwise="measure anew")
    patched = _psa(canvas, model, calibration=loaded)
    samples = _sample_and_show(canvas, patched, vae, "psa_tiny_calibration", OTHER_TEXT)
    canvas.add("PSASaveCalibration", model=patched, samples=samples, name="mine", overwrite=False)


def _sample_and_show(canvas: Canvas, patched: Output, vae: Output, prefix: str, text: str) -> Output:
    conditioning = _prompts(canvas, text)
    latent = empty_video(canvas, *SIZE)
    return sample_and_save(canvas, patched, conditioning, latent, vae, FPS, prefix, **HOW)


def _tiny_compare(canvas: Canvas) -> None:
    model, vae = _load(canvas)
    patched = _psa(canvas, model)
    conditioning = _prompts(canvas)
    latent = empty_video(canvas, *SIZE)
    compare(canvas, model, patched, conditioning, latent, vae, FPS, **HOW)


TINY = (
    Workflow(
        "tiny_video",
        "Tiny model: PSA at work, nothing to download",
        "A video model of 17 million parameters comes with the pack. Press Run: a CPU takes a minute or two. It shows "
        "how the nodes go together; only long clips of large models gain speed.",
        (
            WORDS,
            "Turn `quality` in PSA Attention Patch and run again: watch the picture and the report.",
            "On an NVIDIA card set `backend` to `auto`, which uses the kernels.",
        ),
        _tiny,
        runs_here=True,
    ),
    Workflow(
        "tiny_video_compare",
        "Tiny model: dense beside PSA",
        "The bundled model sampled twice with one seed, dense and sparse. PSA Compare shows how near they are, PSA "
        "Report what attention did.",
        (
            WORDS,
            "`quality` at `fast` and at `near_dense`: how near the videos are, and at what density.",
            "Only the PSA half runs again when `quality` changes.",
        ),
        _tiny_compare,
        runs_here=True,
    ),
    Workflow(
        "tiny_calibration",
        "Tiny model: a calibration, saved and taken over",
        "The first run measures which recipe suits each head of the bundled model, and Save Calibration writes it into "
        "a file. Later runs load it and measure nothing.",
        (
            WORDS,
            "Run, press R so that Load Calibration lists the file, and run again: the error on PSA Attention Patch is "
            "then that of recipes from the first run.",
            "With `mine.yaml` from `user/psa_presets/calibrations` beside a graph, every head does the same elsewhere.",
        ),
        _tiny_calibration,
        runs_here=True,
    ),
)
