"""Wan 2.1: one model, one sampler."""

from __future__ import annotations

from .canvas import Canvas, Output, Workflow
from .model_files import CLIP_VISION, UMT5, WAN21_1_3B, WAN21_14B_I2V, WAN21_14B_T2V, WAN21_VACE_14B, WAN21_VAE
from .parts import (
    BASELINE,
    DIAL,
    IMAGE_PROMPT,
    PROMPT,
    decoded,
    empty_video,
    load,
    load_unet,
    patch,
    promote_size,
    prompts,
    psa,
    report,
    sample,
    save,
    save_video,
    start_image,
)
from .wan_negative import WAN_NEGATIVE

FPS = 16
SHIFT = 8.0
SIZE = (832, 480, 81)
LONG = (832, 480, 161)

RADIAL = {
    "video_length": "long (over 50 frames)",
    "mode": "radial only",
    "decay_factor": 1.0,
    "dense_layers": 3,
    "dense_timesteps": 8,
    "preview_width": LONG[0],
    "preview_height": LONG[1],
    "preview_frames": LONG[2],
}

SAMPLE = {"steps": 30, "cfg": 6.0, "sampler": "uni_pc"}
SHORT = "Clips under 8,192 tokens stay dense; at 832 x 480 that is up to 17 frames."
LORA = "With a 4 to 8 step LoRA put its loader before the patch, and take its steps and cfg 1: `quality` fits them."


def _t2v_1_3b(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN21_1_3B, UMT5, WAN21_VAE, "wan", SHIFT)
    (patched,) = psa(canvas, model)
    _text_to_video(canvas, patched, clip, vae, SIZE, "psa_wan21_1_3b")


def _t2v_14b(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN21_14B_T2V, UMT5, WAN21_VAE, "wan", SHIFT)
    canvas.group("PSA")
    schedule = canvas.add("PSASparsitySchedule", warmup="25%", last_dense="0", curve="preset", preview_steps=30)
    patched = patch(canvas, model, schedule=schedule)
    _text_to_video(canvas, patched, clip, vae, SIZE, "psa_wan21_14b")


def _radial(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN21_1_3B, UMT5, WAN21_VAE, "wan", SHIFT)
    canvas.group("PSA")
    mask = canvas.add("PSARadialMask", last=True, **RADIAL)
    # The mask decides alone: there is nothing for the dial to choose.
    patched = patch(canvas, model, mask=mask, quality="preset")
    _text_to_video(canvas, patched, clip, vae, LONG, "psa_radial")


def _text_to_video(
    canvas: Canvas, patched: Output, clip: Output, vae: Output, size: tuple[int, int, int], prefix: str
) -> None:
    conditioning = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
    latent = empty_video(canvas, *size)
    canvas.group("Sample and save")
    samples = sample(canvas, patched, conditioning, latent, **SAMPLE)
    save_video(canvas, samples, vae, FPS, prefix)
    report(canvas, samples, patched)


def _image_to_video(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN21_14B_I2V, UMT5, WAN21_VAE, "wan", SHIFT)
    clip_vision = canvas.add("CLIPVisionLoader", clip_name=CLIP_VISION)
    (patched,) = psa(canvas, model)
    positive, negative = prompts(canvas, clip, IMAGE_PROMPT, WAN_NEGATIVE)
    image = start_image(canvas)
    seen = canvas.add("CLIPVisionEncode", clip_vision=clip_vision, image=image, crop="none")
    width, height, length = SIZE
    conditioned = canvas.add(
        "WanImageToVideo",
        positive=positive,
        negative=negative,
        vae=vae,
        clip_vision_output=seen,
        start_image=image,
        width=width,
        height=height,
        length=length,
        batch_size=1,
    )
    canvas.group("Sample and save")
    conditioning = conditioned, Output(conditioned.node, 1)
    samples = sample(canvas, patched, conditioning, Output(conditioned.node, 2), **SAMPLE)
    save_video(canvas, samples, vae, FPS, "psa_wan21_i2v")
    report(canvas, samples, patched)


def _reference_to_video(canvas: Canvas) -> None:
    canvas.group("Model")
    model = load_unet(canvas, WAN21_VACE_14B, SHIFT)
    (patched,) = psa(canvas, model)
    canvas.group("Video")
    image = start_image(canvas, "Reference image")
    with canvas.within("Reference image to video (Wan 2.1 VACE)"):
        canvas.group("Encoders")
        clip = canvas.add("CLIPLoader", clip_name=UMT5, type="wan", device="default")
        vae = canvas.add("VAELoader", vae_name=WAN21_VAE)
        positive, negative = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
        width, height, length = SIZE
        conditioned = canvas.add(
            "WanVaceToVideo",
            positive=positive,
            negative=negative,
            vae=vae,
            reference_image=image,
            width=width,
            height=height,
            length=length,
            batch_size=1,
            strength=1.0,
        )
        canvas.group("Sample and decode")
        conditioning = conditioned, Output(conditioned.node, 1)
        samples = sample(canvas, patched, conditioning, Output(conditioned.node, 2), **SAMPLE)
        # The reference is the first latent frame.
        trimmed = canvas.add("TrimVideoLatent", samples=samples, trim_amount=Output(conditioned.node, 3))
        _, video = decoded(canvas, trimmed, vae, FPS)
        canvas.promote(positive, text="prompt")
        promote_size(canvas, conditioned)
        canvas.promote(samples, seed="seed", steps="steps")
    canvas.group("Save")
    save(canvas, video, "psa_wan21_vace")
    report(canvas, samples, patched)


def _compare(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN21_1_3B, UMT5, WAN21_VAE, "wan", SHIFT)
    (patched,) = psa(canvas, model)
    conditioning = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
    latent = empty_video(canvas, *SIZE)
    canvas.group("Sample twice, same seed")
    dense = sample(canvas, model, conditioning, latent, **SAMPLE, title="KSampler (dense)")
    sparse = sample(canvas, patched, conditioning, latent, **SAMPLE, title="KSampler (PSA)")
    compare(canvas, dense, sparse, patched, vae, FPS)


def compare(canvas: Canvas, dense: Output, sparse: Output, patched: Output, vae: Output, fps: int) -> None:
    """Save both videos and their difference, and say how far they are from each other."""
    canvas.group("Videos")
    reference = save_video(canvas, dense, vae, fps, "psa_compare_dense", "Save Video (dense)")
    video = save_video(canvas, sparse, vae, fps, "psa_compare_psa", "Save Video (PSA)")
    report(canvas, sparse, patched)
    compared = canvas.add("PSACompare", size=(560, 420), reference=reference, video=video, gain=4.0)
    difference = canvas.add("CreateVideo", images=Output(compared.node, 1), fps=float(fps))
    size = 560, 600
    canvas.add(
        "SaveVideo",
        "Save Video (difference)",
        size=size,
        video=difference,
        filename_prefix="video/psa_compare_difference",
    )


WAN21 = (
    Workflow(
        "wan21_t2v_1_3b",
        "Wan 2.1 1.3B, text to video",
        "832 x 480, 81 frames (32,760 tokens), 30 steps. The first steps stay dense, the others run sparse.",
        (BASELINE, DIAL, SHORT, LORA),
        _t2v_1_3b,
    ),
    Workflow(
        "wan21_t2v_14b",
        "Wan 2.1 14B, text to video",
        "832 x 480, 81 frames (32,760 tokens), 30 steps. A Sparsity Schedule keeps the first quarter of the steps "
        "dense, however many there are.",
        (
            BASELINE,
            DIAL,
            "1280 x 720 (75,600 tokens): the larger the clip, the more of the time is attention, and the more there is "
            "to gain.",
            "`last_dense` in the Sparsity Schedule keeps steps at the end dense, `dense_layers` whole layers.",
            LORA,
        ),
        _t2v_14b,
    ),
    Workflow(
        "wan21_i2v_14b",
        "Wan 2.1 14B, image to video",
        "A start image and a prompt; 832 x 480, 81 frames. Choose an image of your own in Load Image.",
        (BASELINE, DIAL, "Give `WanImageToVideo` the proportions of your image.", LORA),
        _image_to_video,
    ),
    Workflow(
        "wan21_vace_14b",
        "Wan 2.1 VACE 14B, a reference image to video",
        "The subject of the image in a new scene; 832 x 480, 81 frames, 30 steps. The control branch runs sparse too.",
        (
            BASELINE,
            DIAL,
            "A control video, such as a pose or depth: open the subgraph and connect its frames to `control_video`.",
        ),
        _reference_to_video,
    ),
    Workflow(
        "radial_mask_wan21",
        "Radial Mask: a long clip with Wan 2.1 1.3B",
        "832 x 480, 161 frames (63,960 tokens). A mask by distance of frames decides what is looked at; nothing is "
        "estimated from the content. The node draws what it keeps.",
        (
            "`mode`: `coarsen` pools what `radial only` would cut, `intersect` lets PSA choose within the mask: "
            "then turn `quality` from `preset` to `balanced`.",
            "`decay_factor`: smaller is faster and sees less; 0.2 to 1 are usual.",
            "`scene_boundaries`, such as `0, 80, 161`: scenes that see each other only as `scene_adjacency` says.",
        ),
        _radial,
    ),
    Workflow(
        "compare_dense_and_psa",
        "Dense beside PSA",
        "One prompt and seed, sampled twice: as the model is, and patched. PSA Compare shows how near the two videos "
        "are, PSA Report what attention did.",
        (
            "Any model of Wan or CogVideoX will do: replace the loaders, and the patch recognises it.",
            "PSNR of 30 dB is hard to see; under 20 dB it is another video: turn `quality` to `near_dense`.",
            "The dense half is kept while you turn `quality`: only the PSA half runs again.",
        ),
        _compare,
    ),
)
