"""The bundled tiny model: nothing to download, and a CPU will do."""

from __future__ import annotations

from .canvas import Canvas, Output, Workflow
from .parts import empty_video, patch, report, sample, save_video
from .wan21 import compare

FPS = 8
SIZE = (384, 320, 33)
HOW = {"seed": 2, "steps": 6, "cfg": 4.0, "sampler": "euler"}
TEXT = "a red circle moving left over gray stripes"
WORDS = "Prompts are words that it knows: Tiny Video Prompt lists them in its help, and refuses others."


def _load(canvas: Canvas) -> tuple[Output, Output]:
    canvas.group("Model")
    model = canvas.add("PSATinyVideoModel")
    return model, Output(model.node, 1)


def _psa(canvas: Canvas, model: Output) -> Output:
    canvas.group("PSA")
    # Plain torch runs on any machine.
    return patch(canvas, model, backend="torch")


def _prompts(canvas: Canvas) -> tuple[Output, Output]:
    canvas.group("Prompt and size")
    return (
        canvas.add("PSATinyVideoPrompt", "Prompt", text=TEXT),
        canvas.add("PSATinyVideoPrompt", "Negative prompt (empty)", text=""),
    )


def _tiny(canvas: Canvas) -> None:
    model, vae = _load(canvas)
    patched = _psa(canvas, model)
    conditioning = _prompts(canvas)
    latent = empty_video(canvas, *SIZE)
    canvas.group("Sample and save")
    samples = sample(canvas, patched, conditioning, latent, **HOW)
    save_video(canvas, samples, vae, FPS, "psa_tiny")
    report(canvas, samples, patched)


def _tiny_compare(canvas: Canvas) -> None:
    model, vae = _load(canvas)
    patched = _psa(canvas, model)
    conditioning = _prompts(canvas)
    latent = empty_video(canvas, *SIZE)
    canvas.group("Sample twice, same seed")
    dense = sample(canvas, model, conditioning, latent, **HOW, title="KSampler (dense)")
    sparse = sample(canvas, patched, conditioning, latent, **HOW, title="KSampler (PSA)")
    compare(canvas, dense, sparse, patched, vae, FPS)


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
)
