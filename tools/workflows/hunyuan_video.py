"""HunyuanVideo 1.5, as the stock template samples it."""

from __future__ import annotations

from .canvas import Canvas, Workflow
from .columns import patched_model, promote_usual, save_and_report
from .model_files import HUNYUAN_VIDEO_15, HUNYUAN_VIDEO_15_GLYPHS, HUNYUAN_VIDEO_15_TEXT, HUNYUAN_VIDEO_15_VAE
from .parts import BASELINE, DIAL, PROMPT, decoded, prompts, sample

FPS, SHIFT = 24, 7.0


def _text_to_video(canvas: Canvas) -> None:
    patched = patched_model(canvas, HUNYUAN_VIDEO_15, SHIFT)
    canvas.group("Video")
    with canvas.within("Text to video (HunyuanVideo 1.5)"):
        canvas.group("Encoders")
        encoders = {"clip_name1": HUNYUAN_VIDEO_15_TEXT, "clip_name2": HUNYUAN_VIDEO_15_GLYPHS}
        clip = canvas.add("DualCLIPLoader", **encoders, type="hunyuan_video_15", device="default")
        vae = canvas.add("VAELoader", vae_name=HUNYUAN_VIDEO_15_VAE)
        conditioning = prompts(canvas, clip, PROMPT)
        latent = canvas.add("EmptyHunyuanVideo15Latent", width=1280, height=720, length=121, batch_size=1)
        canvas.group("Sample and decode")
        samples = sample(canvas, patched, conditioning, latent, steps=20, cfg=6.0, sampler="euler")
        _, video = decoded(canvas, samples, vae, FPS)
        promote_usual(canvas, conditioning[0], latent, samples)
    save_and_report(canvas, video, "psa_hunyuan_video_15", samples, patched)


HUNYUAN_VIDEO = (
    Workflow(
        "hunyuan_video_15_t2v",
        "HunyuanVideo 1.5, text to video",
        "1280 x 720, 121 frames at 24 a second (111,600 tokens of video), 20 steps. The text stays exact for every "
        "token of the video.",
        (
            BASELINE,
            DIAL,
            "Out of memory in VAE Decode: take VAE Decode (Tiled) in its place.",
        ),
        _text_to_video,
    ),
)
