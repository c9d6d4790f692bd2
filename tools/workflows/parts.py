"""What most workflows have in common, a group of nodes each, and lines of their notes."""

from __future__ import annotations

from typing import Any

from .canvas import Canvas, Output
from .model_files import ModelFile

PROMPT = (
    "A red fox trots through fresh snow between birch trees at dawn, breath steaming, the camera follows at its side, "
    "warm low sunlight, shallow depth of field."
)
IMAGE_PROMPT = "The subject turns its head slowly and looks into the camera, a light wind moves the background."
NEGATIVE = "blurry, low quality, distorted, static, subtitles, watermark"
EXAMPLE_IMAGE = "example.png"
# With room for the report's line, the video and the image.
PATCH_SIZE, VIDEO_SIZE, IMAGE_SIZE = (320, 250), (320, 400), (320, 380)

BASELINE = "`enabled` off in PSA Attention Patch, same seed: the baseline to compare with."
DIAL = "Drafts: `quality` at `fast`. Finals: `near_dense`, which is slower and nearer to the baseline."


# What should be seen and what should not; width, height and frames of a clip.
Prompts, Size = tuple[Output, Output], tuple[int, int, int]


def load(
    canvas: Canvas, model: ModelFile, text_encoder: ModelFile, vae: ModelFile, kind: str, shift: float | None = None
) -> tuple[Output, Output, Output]:
    """Core's loaders of a model, a text encoder and an autoencoder."""
    canvas.group("Models")
    unet = load_unet(canvas, model, shift)
    clip = canvas.add("CLIPLoader", clip_name=text_encoder, type=kind, device="default")
    return unet, clip, canvas.add("VAELoader", vae_name=vae)


def load_unet(canvas: Canvas, model: ModelFile, shift: float | None = None, lora: ModelFile | None = None) -> Output:
    """A model with a LoRA and a flow shift, where there are any."""
    unet = canvas.add("UNETLoader", unet_name=model, weight_dtype="default")
    if lora is not None:
        unet = canvas.add("LoraLoaderModelOnly", model=unet, lora_name=lora, strength_model=1.0)
    return unet if shift is None else canvas.add("ModelSamplingSD3", model=unet, shift=shift)


def patch(canvas: Canvas, model: Output, title: str | None = None, **inputs: Any) -> Output:
    """PSA Attention Patch with its own defaults."""
    widgets = {
        "enabled": True,
        "backend": "auto",
        "min_tokens": 0,
        "quality": "balanced",
        "unknown_models": "video",
        "precision": "preset",
        "dense_backend": "preset",
        "max_extra_memory": 0.0,
    } | inputs
    return canvas.add("PSAAttentionPatch", title, size=PATCH_SIZE, model=model, **widgets)


def psa(canvas: Canvas, *models: Output) -> list[Output]:
    """A patch for each model, with the dial."""
    canvas.group("PSA")
    titles = [None] if len(models) == 1 else ["PSA Attention Patch (high noise)", "PSA Attention Patch (low noise)"]
    return [patch(canvas, model, title) for model, title in zip(models, titles, strict=True)]


def prompts(canvas: Canvas, clip: Output, positive: str, negative: str = NEGATIVE) -> Prompts:
    """What should be seen, and what should not."""
    canvas.group("Prompt and size")
    return (
        canvas.add("CLIPTextEncode", "Prompt", size=(380, 180), clip=clip, text=positive),
        canvas.add("CLIPTextEncode", "Negative prompt", size=(380, 120), clip=clip, text=negative),
    )


def empty_video(canvas: Canvas, width: int, height: int, length: int) -> Output:
    """The latent to start from; one shape serves Wan and CogVideoX."""
    return canvas.add("EmptyHunyuanLatentVideo", width=width, height=height, length=length, batch_size=1)


def report(canvas: Canvas, samples: Output, model: Output, model_2: Output | None = None) -> None:
    """What attention did, with room for its picture."""
    canvas.group("What PSA did")
    second = {} if model_2 is None else {"model_2": model_2}
    canvas.add("PSAReport", size=(560, 560), model=model, samples=samples, **second)


def start_image(canvas: Canvas, title: str = "Start image") -> Output:
    return canvas.add("LoadImage", title, size=IMAGE_SIZE, image=EXAMPLE_IMAGE)


def sample(
    canvas: Canvas,
    model: Output,
    conditioning: Prompts,
    latent: Output,
    *,
    steps: int,
    cfg: float,
    sampler: str,
    scheduler: str = "simple",
    seed: int = 0,
    title: str | None = None,
) -> Output:
    """KSampler over the whole denoising."""
    positive, negative = conditioning
    return canvas.sampler(
        "KSampler",
        title,
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler,
        scheduler=scheduler,
        denoise=1.0,
    )


def save_video(canvas: Canvas, samples: Output, vae: Output, fps: int, prefix: str, title: str | None = None) -> Output:
    """Decode and save; the frames go on."""
    frames, video = decoded(canvas, samples, vae, fps)
    save(canvas, video, prefix, title)
    return frames


def decoded(canvas: Canvas, samples: Output, vae: Output, fps: int) -> tuple[Output, Output]:
    """Frames, and the video that they make."""
    frames = canvas.add("VAEDecode", samples=samples, vae=vae)
    return frames, canvas.add("CreateVideo", images=frames, fps=float(fps))


def save(
    canvas: Canvas, video: Output, prefix: str, title: str | None = None, size: tuple[int, int] = VIDEO_SIZE
) -> None:
    canvas.add("SaveVideo", title, size=size, video=video, filename_prefix=f"video/{prefix}")


def promote_size(canvas: Canvas, node: Output) -> None:
    """Show the size of a clip on the subgraph."""
    canvas.promote(node, width="width", height="height", length="length")
