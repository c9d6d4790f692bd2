"""Wan 2.1: one model, one sampler."""

from __future__ import annotations

from typing import Any

from .canvas import Canvas, Output, Workflow
from .columns import (
    compare,
    condition,
    patched_model,
    promote_usual,
    sample_and_save,
    sample_with_reference,
    save_and_report,
)
from .model_files import CLIP_VISION, UMT5, WAN21_1_3B, WAN21_14B_I2V, WAN21_14B_T2V, WAN21_VACE_14B, WAN21_VAE
from .parts import BASELINE, DIAL, IMAGE_PROMPT, PROMPT, Size, empty_video, load, patch, prompts, psa, start_image
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

SAMPLE: dict[str, Any] = {"steps": 30, "cfg": 6.0, "sampler": "uni_pc"}
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


def _text_to_video(canvas: Canvas, patched: Output, clip: Output, vae: Output, size: Size, prefix: str) -> None:
    conditioning = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
    latent = empty_video(canvas, *size)
    sample_and_save(canvas, patched, conditioning, latent, vae, FPS, prefix, **SAMPLE)


def _image_to_video(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN21_14B_I2V, UMT5, WAN21_VAE, "wan", SHIFT)
    clip_vision = canvas.add("CLIPVisionLoader", clip_name=CLIP_VISION)
    (patched,) = psa(canvas, model)
    conditioning = prompts(canvas, clip, IMAGE_PROMPT, WAN_NEGATIVE)
    image = start_image(canvas)
    seen = canvas.add("CLIPVisionEncode", clip_vision=clip_vision, image=image, crop="none")
    pictures = {"clip_vision_output": seen, "start_image": image}
    conditioned = condition(canvas, "WanImageToVideo", conditioning, vae, SIZE, **pictures)
    sample_and_save(canvas, patched, conditioned.prompts, conditioned.latent, vae, FPS, "psa_wan21_i2v", **SAMPLE)


def _reference_to_video(canvas: Canvas) -> None:
    patched = patched_model(canvas, WAN21_VACE_14B, SHIFT)
    canvas.group("Video")
    image = start_image(canvas, "Reference image")
    with canvas.within("Reference image to video (Wan 2.1 VACE)"):
        canvas.group("Encoders")
        clip = canvas.add("CLIPLoader", clip_name=UMT5, type="wan", device="default")
        vae = canvas.add("VAELoader", vae_name=WAN21_VAE)
        conditioning = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
        reference = {"reference_image": image, "strength": 1.0}
        conditioned = condition(canvas, "WanVaceToVideo", conditioning, vae, SIZE, **reference)
        samples, video = sample_with_reference(canvas, patched, conditioned, vae, FPS, **SAMPLE)
        promote_usual(canvas, conditioning[0], conditioned.node, samples)
    save_and_report(canvas, video, "psa_wan21_vace", samples, patched)


def _compare(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN21_1_3B, UMT5, WAN21_VAE, "wan", SHIFT)
    (patched,) = psa(canvas, model)
    conditioning = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
    latent = empty_video(canvas, *SIZE)
    compare(canvas, model, patched, conditioning, latent, vae, FPS, **SAMPLE)


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
