"""LTX-2.3 and 2.5: video with sound, sampled small and then at twice the size, as the stock templates do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .canvas import Build, Canvas, Output, Workflow
from .columns import save_and_report
from .model_files import (
    LTX23,
    LTX23_DISTILLED,
    LTX23_TEXT,
    LTX23_UPSCALER,
    LTX25,
    LTX25_AUDIO_VAE,
    LTX25_TEXT,
    LTX25_UPSCALER,
    LTX25_VAE,
    ModelFile,
)
from .parts import BASELINE, DIAL, load_unet, prompts, psa, start_image

WIDTH, HEIGHT, LENGTH, FPS = 1280, 704, 121, 24
SMALL_SIGMAS = "1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0"
LARGE_SIGMAS = "0.85, 0.7250, 0.4219, 0.0"
# How firmly the first frame is the image: while small the video may move away from it.
SMALL_STRENGTH, LARGE_STRENGTH = 0.7, 1.0
COMPRESSION = 18
SOUND_PROMPT = (
    "A red fox trots through fresh snow between birch trees at dawn, breath steaming, the camera follows at its side, "
    "warm low sunlight. The snow creaks under its paws, wind hums in the branches, a bird sings far away."
)
IMAGE_PROMPT = (
    "The subject turns its head slowly and looks into the camera, a light wind moves the background. Leaves rustle."
)
LONGER = "Longer: `length` to 8 times a number, plus 1; most of the time is then attention."


class Coders(NamedTuple):
    """What encodes and decodes, out of files of their own or the model's."""

    clip: Output
    vae: Output
    audio_vae: Output


class Version(NamedTuple):
    """Where the releases differ.

    Attributes:
        model: adds the model's loaders, whose file may hold the autoencoder too.
        coders: adds the others, but for such an autoencoder.
        upscaler: doubles width and height of a latent.
        guider: class and widgets; both are distilled models, which take no guidance.
        decode: widgets of the decoder.
    """

    model: Callable[[Canvas], tuple[Output, Output | None]]
    coders: Callable[[Canvas, Output | None], Coders]
    upscaler: ModelFile
    sampler: str
    guider: tuple[str, dict[str, float]]
    decode: dict[str, int]


def _model_23(canvas: Canvas) -> tuple[Output, Output]:
    whole = canvas.add("CheckpointLoaderSimple", ckpt_name=LTX23)
    model = canvas.add("LoraLoaderModelOnly", model=whole, lora_name=LTX23_DISTILLED, strength_model=0.5)
    return model, whole.other(2)


def _coders_23(canvas: Canvas, vae: Output | None) -> Coders:
    assert vae is not None
    clip = canvas.add("LTXAVTextEncoderLoader", text_encoder=LTX23_TEXT, ckpt_name=LTX23, device="default")
    return Coders(clip, vae, canvas.add("LTXVAudioVAELoader", ckpt_name=LTX23))


def _model_25(canvas: Canvas) -> tuple[Output, None]:
    return load_unet(canvas, LTX25), None


def _coders_25(canvas: Canvas, vae: Output | None) -> Coders:
    clip = canvas.add("CLIPLoader", clip_name=LTX25_TEXT, type="ltxv", device="default")
    video, audio = (canvas.add("VAELoader", vae_name=file) for file in (LTX25_VAE, LTX25_AUDIO_VAE))
    return Coders(clip, video, audio)


VERSION_23 = Version(
    _model_23,
    _coders_23,
    LTX23_UPSCALER,
    "euler",
    ("CFGGuider", {"cfg": 1.0}),
    {"tile_size": 768, "overlap": 64, "temporal_size": 4096, "temporal_overlap": 4},
)
VERSION_25 = Version(
    _model_25,
    _coders_25,
    LTX25_UPSCALER,
    "euler_ancestral",
    ("LTXVDualCFGGuider", {"video_cfg": 1.0, "audio_cfg": 1.0}),
    {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 16},
)


def _video(version: Version, title: str, prefix: str, from_image: bool = False) -> Build:
    def build(canvas: Canvas) -> None:
        canvas.group("Model")
        model, vae = version.model(canvas)
        (patched,) = psa(canvas, model)
        canvas.group("Video")
        image = start_image(canvas) if from_image else None
        with canvas.within(title):
            canvas.group("Encoders")
            coders = version.coders(canvas, vae)
            upscaler = canvas.add("LatentUpscaleModelLoader", model_name=version.upscaler)
            positive, negative = prompts(canvas, coders.clip, IMAGE_PROMPT if from_image else SOUND_PROMPT)
            both = canvas.add("LTXVConditioning", positive=positive, negative=negative, frame_rate=float(FPS))
            if image is not None:
                image = canvas.add("LTXVPreprocess", image=image, img_compression=COMPRESSION)
            length = canvas.add("PrimitiveInt", "Length", value=LENGTH)
            empty = canvas.add(
                "EmptyLTXVLatentVideo", width=WIDTH // 2, height=HEIGHT // 2, length=length, batch_size=1
            )
            sound = canvas.add(
                "LTXVEmptyLatentAudio", audio_vae=coders.audio_vae, frames_number=length, frame_rate=FPS, batch_size=1
            )
            canvas.promote(positive, text="prompt")
            canvas.promote(empty, width="small_width", height="small_height")
            canvas.promote(length, value="length")
            canvas.group("Sample small")
            kind, scales = version.guider
            guider = canvas.add(kind, model=patched, positive=both, negative=both.other(1), **scales)
            video = _first_frame(canvas, coders.vae, image, empty, SMALL_STRENGTH)
            how: dict[str, Any] = {"guider": guider, "sampler": version.sampler}
            small = _sample(canvas, video, sound, SMALL_SIGMAS, "seed", **how)
            canvas.group("Sample large and decode")
            video = canvas.add("LTXVLatentUpsampler", samples=small, upscale_model=upscaler, vae=coders.vae)
            video = _first_frame(canvas, coders.vae, image, video, LARGE_STRENGTH)
            large = _sample(canvas, video, small.other(1), LARGE_SIGMAS, "large_seed", **how)
            frames = canvas.add("VAEDecodeTiled", samples=large, vae=coders.vae, **version.decode)
            sound = canvas.add("LTXVAudioVAEDecode", samples=large.other(1), audio_vae=coders.audio_vae)
            made = canvas.add("CreateVideo", images=frames, audio=sound, fps=float(FPS))
        save_and_report(canvas, made, prefix, large, patched)

    return build


def _first_frame(canvas: Canvas, vae: Output, image: Output | None, latent: Output, strength: float) -> Output:
    """The latent with the image as its first frame, where there is one."""
    if image is None:
        return latent
    fixed = {"strength": strength, "bypass": False}
    return canvas.add("LTXVImgToVideoInplace", vae=vae, image=image, latent=latent, **fixed)


def _sample(
    canvas: Canvas, video: Output, sound: Output, sigmas: str, seed: str, *, guider: Output, sampler: str
) -> Output:
    """Video and, in the second slot, sound; ``seed``: its name on the subgraph."""
    joint = canvas.add("LTXVConcatAVLatent", video_latent=video, audio_latent=sound)
    noise = canvas.sampler("RandomNoise", noise_seed=0)
    canvas.promote(noise, noise_seed=seed)
    samples = canvas.add(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=canvas.add("KSamplerSelect", sampler_name=sampler),
        sigmas=canvas.add("ManualSigmas", sigmas=sigmas),
        latent_image=joint,
    )
    return canvas.add("LTXVSeparateAVLatent", av_latent=samples)


LTX2 = tuple(
    Workflow(
        f"ltx2{minor}_{'i2v' if from_image else 't2v'}",
        f"LTX-2.{minor}, {'image' if from_image else 'text'} to video with sound",
        ("A start image and a prompt; " if from_image else "")
        + "8 steps at 640 x 352, then 3 at 1280 x 704 (14,080 tokens of video), 121 frames at 24 a second. The small "
        "steps stay dense: they are short.",
        (BASELINE, DIAL, LONGER),
        _video(
            version,
            f"{'Image' if from_image else 'Text'} to video with sound (LTX-2.{minor})",
            f"psa_ltx2{minor}",
            from_image,
        ),
    )
    for minor, version in ((3, VERSION_23), (5, VERSION_25))
    for from_image in (False, True)
)
