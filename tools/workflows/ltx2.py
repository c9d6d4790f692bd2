"""LTX-2.3 and 2.5: video with sound, sampled small and then at twice the size, as the stock templates do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .canvas import Build, Canvas, Output, Workflow
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
from .parts import BASELINE, DIAL, VIDEO_SIZE, load_unet, prompts, psa, report, start_image

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
LONGER = "Longer: `length` and `frames_number` to 8 times a number, plus 1; most of the time is then attention."


class Parts(NamedTuple):
    """What the files hold."""

    model: Output
    clip: Output
    vae: Output
    audio_vae: Output


class Version(NamedTuple):
    """Where the releases differ.

    Attributes:
        load: adds the loaders.
        upscaler: doubles width and height of a latent.
        guider: class and widgets; both are distilled models, which take no guidance.
        decode: widgets of the decoder.
    """

    load: Callable[[Canvas], Parts]
    upscaler: ModelFile
    sampler: str
    guider: tuple[str, dict[str, float]]
    decode: dict[str, int]


def _load_23(canvas: Canvas) -> Parts:
    whole = canvas.add("CheckpointLoaderSimple", ckpt_name=LTX23)
    model = canvas.add("LoraLoaderModelOnly", model=whole, lora_name=LTX23_DISTILLED, strength_model=0.5)
    clip = canvas.add("LTXAVTextEncoderLoader", text_encoder=LTX23_TEXT, ckpt_name=LTX23, device="default")
    return Parts(model, clip, Output(whole.node, 2), canvas.add("LTXVAudioVAELoader", ckpt_name=LTX23))


def _load_25(canvas: Canvas) -> Parts:
    model = load_unet(canvas, LTX25)
    clip = canvas.add("CLIPLoader", clip_name=LTX25_TEXT, type="ltxv", device="default")
    vae, audio_vae = (canvas.add("VAELoader", vae_name=file) for file in (LTX25_VAE, LTX25_AUDIO_VAE))
    return Parts(model, clip, vae, audio_vae)


VERSION_23 = Version(
    _load_23,
    LTX23_UPSCALER,
    "euler",
    ("CFGGuider", {"cfg": 1.0}),
    {"tile_size": 768, "overlap": 64, "temporal_size": 4096, "temporal_overlap": 4},
)
VERSION_25 = Version(
    _load_25,
    LTX25_UPSCALER,
    "euler_ancestral",
    ("LTXVDualCFGGuider", {"video_cfg": 1.0, "audio_cfg": 1.0}),
    {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 16},
)


def _video(version: Version, prefix: str, from_image: bool = False) -> Build:
    def build(canvas: Canvas) -> None:
        canvas.group("Models")
        parts = version.load(canvas)
        upscaler = canvas.add("LatentUpscaleModelLoader", model_name=version.upscaler)
        (patched,) = psa(canvas, parts.model)
        positive, negative = prompts(canvas, parts.clip, IMAGE_PROMPT if from_image else SOUND_PROMPT)
        both = canvas.add("LTXVConditioning", positive=positive, negative=negative, frame_rate=float(FPS))
        image = None
        if from_image:
            image = canvas.add("LTXVPreprocess", image=start_image(canvas), img_compression=COMPRESSION)
        canvas.group("Sample small")
        kind, scales = version.guider
        guider = canvas.add(kind, model=patched, positive=both, negative=Output(both.node, 1), **scales)
        video = _first_frame(canvas, parts.vae, image, _empty_video(canvas), SMALL_STRENGTH)
        how: dict[str, Any] = {"guider": guider, "sampler": version.sampler}
        small = _sample(canvas, video, _empty_sound(canvas, parts.audio_vae), SMALL_SIGMAS, **how)
        canvas.group("Sample large and save")
        video = canvas.add("LTXVLatentUpsampler", samples=small, upscale_model=upscaler, vae=parts.vae)
        video = _first_frame(canvas, parts.vae, image, video, LARGE_STRENGTH)
        large = _sample(canvas, video, Output(small.node, 1), LARGE_SIGMAS, **how)
        frames = canvas.add("VAEDecodeTiled", samples=large, vae=parts.vae, **version.decode)
        sound = canvas.add("LTXVAudioVAEDecode", samples=Output(large.node, 1), audio_vae=parts.audio_vae)
        saved = canvas.add("CreateVideo", images=frames, audio=sound, fps=float(FPS))
        canvas.add("SaveVideo", size=VIDEO_SIZE, video=saved, filename_prefix=f"video/{prefix}")
        report(canvas, large, patched)

    return build


def _empty_video(canvas: Canvas) -> Output:
    return canvas.add("EmptyLTXVLatentVideo", width=WIDTH // 2, height=HEIGHT // 2, length=LENGTH, batch_size=1)


def _empty_sound(canvas: Canvas, audio_vae: Output) -> Output:
    length = {"frames_number": LENGTH, "frame_rate": FPS, "batch_size": 1}
    return canvas.add("LTXVEmptyLatentAudio", audio_vae=audio_vae, **length)


def _first_frame(canvas: Canvas, vae: Output, image: Output | None, latent: Output, strength: float) -> Output:
    """The latent with the image as its first frame, where there is one."""
    if image is None:
        return latent
    fixed = {"strength": strength, "bypass": False}
    return canvas.add("LTXVImgToVideoInplace", vae=vae, image=image, latent=latent, **fixed)


def _sample(canvas: Canvas, video: Output, sound: Output, sigmas: str, *, guider: Output, sampler: str) -> Output:
    """Video and, in the second slot, sound."""
    joint = canvas.add("LTXVConcatAVLatent", video_latent=video, audio_latent=sound)
    samples = canvas.add(
        "SamplerCustomAdvanced",
        noise=canvas.sampler("RandomNoise", noise_seed=0),
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
        _video(version, f"psa_ltx2{minor}", from_image),
    )
    for minor, version in ((3, VERSION_23), (5, VERSION_25))
    for from_image in (False, True)
)
