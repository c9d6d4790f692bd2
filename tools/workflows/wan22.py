"""Wan 2.2: the 5B model, and A14B's two experts, each with its own patch."""

from __future__ import annotations

from typing import Any

from .canvas import Build, Canvas, Output, Workflow
from .columns import condition, sample_and_save
from .model_files import (
    UMT5,
    WAN21_VAE,
    WAN22_5B,
    WAN22_I2V,
    WAN22_I2V_4STEPS,
    WAN22_T2V,
    WAN22_T2V_4STEPS,
    WAN22_VAE,
    ModelFile,
)
from .parts import (
    BASELINE,
    DIAL,
    IMAGE_PROMPT,
    PROMPT,
    Prompts,
    empty_video,
    load,
    load_unet,
    prompts,
    psa,
    report,
    save_video,
    start_image,
)
from .wan_negative import WAN_NEGATIVE

Experts = tuple[ModelFile, ModelFile]

SIZE = (832, 480, 81)
FPS, FPS_5B = 16, 24
SHIFT = 5.0
SAMPLE_5B: dict[str, Any] = {"steps": 20, "cfg": 5.0, "sampler": "uni_pc"}
FULL = {"steps": 20, "switch": 10, "cfg": 3.5}
DISTILLED = {"steps": 4, "switch": 2, "cfg": 1.0}

BASELINE_OF_BOTH = "`enabled` off in both patches, same seed: the baseline to compare with."
SAME_DIAL = "`quality` of both patches: `fast` for drafts, `near_dense` for finals."
BOTH = "Steps are counted over both samplers: the warm-up ends where it says, whichever expert is at work."
FEW = "Of four steps the first stays dense: it decides what the video shows."


def _experts(canvas: Canvas, files: Experts, loras: Experts | None) -> tuple[list[Output], Output, Output]:
    canvas.group("Models")
    high_lora, low_lora = loras or (None, None)
    models = [load_unet(canvas, files[0], SHIFT, high_lora), load_unet(canvas, files[1], SHIFT, low_lora)]
    clip = canvas.add("CLIPLoader", clip_name=UMT5, type="wan", device="default")
    return models, clip, canvas.add("VAELoader", vae_name=WAN21_VAE)


def _a14b(files: Experts, loras: Experts | None, prefix: str, from_image: bool) -> Build:
    def build(canvas: Canvas) -> None:
        models, clip, vae = _experts(canvas, files, loras)
        patched = psa(canvas, *models)
        conditioning = prompts(canvas, clip, IMAGE_PROMPT if from_image else PROMPT, WAN_NEGATIVE)
        if from_image:
            conditioned = condition(canvas, "WanImageToVideo", conditioning, vae, SIZE, start_image=start_image(canvas))
            conditioning, latent = conditioned.prompts, conditioned.latent
        else:
            latent = empty_video(canvas, *SIZE)
        canvas.group("Sample and save")
        samples = _two_samplers(canvas, patched, conditioning, latent, **(DISTILLED if loras else FULL))
        save_video(canvas, samples, vae, FPS, prefix)
        report(canvas, samples, *patched)

    return build


def _two_samplers(
    canvas: Canvas,
    models: list[Output],
    conditioning: Prompts,
    latent: Output,
    steps: int,
    switch: int,
    cfg: float,
) -> Output:
    shared: dict[str, Any] = {
        "positive": conditioning[0],
        "negative": conditioning[1],
        "noise_seed": 0,
        "steps": steps,
        "cfg": cfg,
        "sampler_name": "euler",
        "scheduler": "simple",
    }
    high = canvas.sampler(
        "KSamplerAdvanced",
        "KSampler (high noise)",
        model=models[0],
        add_noise="enable",
        latent_image=latent,
        start_at_step=0,
        end_at_step=switch,
        return_with_leftover_noise="enable",
        **shared,
    )
    return canvas.sampler(
        "KSamplerAdvanced",
        "KSampler (low noise)",
        model=models[1],
        add_noise="disable",
        latent_image=high,
        start_at_step=switch,
        end_at_step=steps,
        return_with_leftover_noise="disable",
        **shared,
    )


def _ti2v_5b(canvas: Canvas) -> None:
    model, clip, vae = load(canvas, WAN22_5B, UMT5, WAN22_VAE, "wan", 8.0)
    (patched,) = psa(canvas, model)
    conditioning = prompts(canvas, clip, PROMPT, WAN_NEGATIVE)
    latent = canvas.add("Wan22ImageToVideoLatent", vae=vae, width=1280, height=704, length=121, batch_size=1)
    sample_and_save(canvas, patched, conditioning, latent, vae, FPS_5B, "psa_wan22_5b", **SAMPLE_5B)


WAN22 = (
    Workflow(
        "wan22_ti2v_5b",
        "Wan 2.2 5B, text or image to video",
        "1280 x 704, 121 frames at 24 a second (27,280 tokens), 20 steps. For image to video connect a Load Image to "
        "`start_image`.",
        (BASELINE, DIAL, "Its autoencoder packs 16 x 16 pixels: clips have a quarter of Wan 2.1's tokens."),
        _ti2v_5b,
    ),
    Workflow(
        "wan22_t2v_a14b",
        "Wan 2.2 A14B, text to video",
        "Both experts patched; 832 x 480, 81 frames, 20 steps, the second half by the low-noise one.",
        (BASELINE_OF_BOTH, SAME_DIAL, BOTH),
        _a14b(WAN22_T2V, None, "psa_wan22_t2v", from_image=False),
    ),
    Workflow(
        "wan22_t2v_a14b_4steps",
        "Wan 2.2 A14B, text to video in 4 steps",
        "Both experts with their 4-step LoRAs, both patched; 832 x 480, 81 frames.",
        (BASELINE_OF_BOTH, SAME_DIAL, FEW, BOTH),
        _a14b(WAN22_T2V, WAN22_T2V_4STEPS, "psa_wan22_t2v_4steps", from_image=False),
    ),
    Workflow(
        "wan22_i2v_a14b",
        "Wan 2.2 A14B, image to video",
        "Both experts patched; a start image, 832 x 480, 81 frames, 20 steps.",
        (BASELINE_OF_BOTH, SAME_DIAL, BOTH, "Give `WanImageToVideo` the proportions of your image."),
        _a14b(WAN22_I2V, None, "psa_wan22_i2v", from_image=True),
    ),
    Workflow(
        "wan22_i2v_a14b_4steps",
        "Wan 2.2 A14B, image to video in 4 steps",
        "Both experts with their 4-step LoRAs, both patched; a start image, 832 x 480, 81 frames.",
        (BASELINE_OF_BOTH, SAME_DIAL, FEW, BOTH, "Give `WanImageToVideo` the proportions of your image."),
        _a14b(WAN22_I2V, WAN22_I2V_4STEPS, "psa_wan22_i2v_4steps", from_image=True),
    ),
)
