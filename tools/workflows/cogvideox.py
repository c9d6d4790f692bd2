"""CogVideoX on core's own nodes, with the pack's loaders for files in diffusers' names."""

from __future__ import annotations

from .canvas import Build, Canvas, Output, Workflow
from .model_files import (
    COGVIDEOX15_5B_I2V,
    COGVIDEOX15_5B_T2V,
    COGVIDEOX_5B_I2V,
    COGVIDEOX_5B_T2V,
    COGVIDEOX_PSA_LORA,
    COGVIDEOX_VAE,
    T5,
    ModelFile,
)
from .parts import (
    BASELINE,
    DIAL,
    IMAGE_PROMPT,
    PROMPT,
    Prompts,
    Size,
    empty_video,
    patch,
    prompts,
    psa,
    report,
    sample,
    save_video,
    start_image,
)

SIZE, FPS = (720, 480, 49), 8
# 22 latent frames: 1.5 takes them two by two. The first is dropped, as it was in training, which leaves 81 frames.
SIZE_15, FPS_15, KEPT_15 = (1360, 768, 85), 16, 21
# The nearest to the solver that the models' authors use; euler is their other one, DDIM.
SAMPLER, SCHEDULER = "dpmpp_2m_sde", "simple"
FULL = {"steps": 50, "cfg": 6.0}
DISTILLED = {"steps": 4, "cfg": 1.0}

PRESET_BASELINE = "`attention`: `dense` in the Preset Loader, same seed: the baseline to compare with."
BAR = (
    "Drag the borders of the bar in the Preset Loader: to the left it is faster, to the right nearer to dense. Without "
    "a Preset Loader the patch's `quality` decides."
)
ANY_NAMES = (
    "CogVideoX Loader takes diffusers' files (also in parts: choose the first) and those in ComfyUI's own key names."
)
EVEN = (
    "Lengths: 8 times a number, plus 5, such as 85, make an even number of latent frames. LatentCut drops the first, "
    "as in training; set its `amount` to one less than there are."
)
IMAGE = "The image is scaled to the video's size: InstructPixToPixConditioning hands it on as the first frame."


def _build(
    model_file: ModelFile,
    size: Size,
    fps: int,
    prefix: str,
    lora: ModelFile | None = None,
    from_image: bool = False,
) -> Build:
    def build(canvas: Canvas) -> None:
        model, clip, vae = _load(canvas, model_file, lora)
        patched = _patched_for_lora(canvas, model) if lora else psa(canvas, model)[0]
        conditioning = prompts(canvas, clip, IMAGE_PROMPT if from_image else PROMPT)
        if from_image:
            conditioning = _first_frame(canvas, conditioning, vae, size)
        latent = empty_video(canvas, *size)
        canvas.group("Sample and save")
        how = DISTILLED if lora else FULL
        samples = sample(canvas, patched, conditioning, latent, **how, sampler=SAMPLER, scheduler=SCHEDULER)
        kept = samples if size == SIZE else canvas.add("LatentCut", samples=samples, dim="t", index=1, amount=KEPT_15)
        save_video(canvas, kept, vae, fps, prefix)
        report(canvas, samples, patched)

    return build


def _load(canvas: Canvas, model_file: ModelFile, lora: ModelFile | None) -> tuple[Output, Output, Output]:
    canvas.group("Models")
    model = canvas.add("PSACogVideoXLoader", unet_name=model_file, weight_dtype="default")
    if lora is not None:
        model = canvas.add("PSACogVideoXLoRA", model=model, lora_name=lora, strength_model=1.0)
    clip = canvas.add("CLIPLoader", clip_name=T5, type="cogvideox", device="default")
    return model, clip, canvas.add("VAELoader", vae_name=COGVIDEOX_VAE)


def _patched_for_lora(canvas: Canvas, model: Output) -> Output:
    """The preset that the PSA LoRA was made for, in place of the dial."""
    canvas.group("PSA")
    return patch(canvas, model, preset=canvas.preset("CogVideo_5b", "psa_4steps"), quality="preset")


def _first_frame(canvas: Canvas, conditioning: Prompts, vae: Output, size: Size) -> Prompts:
    width, height, _ = size
    image = canvas.add(
        "ImageScale", image=start_image(canvas), upscale_method="lanczos", width=width, height=height, crop="center"
    )
    positive, negative = conditioning
    node = canvas.add("InstructPixToPixConditioning", positive=positive, negative=negative, vae=vae, pixels=image)
    return node, node.other(1)


COGVIDEOX = (
    Workflow(
        "cogvideox_5b_t2v",
        "CogVideoX-5B, text to video",
        "720 x 480, 49 frames at 8 a second (17,776 tokens with the prompt), 50 steps; the first of them stay dense.",
        (BASELINE, DIAL, ANY_NAMES),
        _build(COGVIDEOX_5B_T2V, SIZE, FPS, "psa_cogvideox_5b"),
    ),
    Workflow(
        "cogvideox_5b_i2v",
        "CogVideoX-5B, image to video",
        "A start image and a prompt; 720 x 480, 49 frames at 8 a second, 50 steps.",
        (BASELINE, DIAL, IMAGE, ANY_NAMES),
        _build(COGVIDEOX_5B_I2V, SIZE, FPS, "psa_cogvideox_5b_i2v", from_image=True),
    ),
    Workflow(
        "cogvideox_5b_psa_4steps",
        "CogVideoX-5B in 4 steps, with the PSA LoRA",
        "A LoRA that was trained with Pyramid Sparse Attention: 4 steps, cfg 1, every step sparse.",
        (
            PRESET_BASELINE,
            BAR,
            "CogVideoX LoRA Loader says on itself how many of the file's keys it found in the model.",
            "Any other CogVideoX LoRA in diffusers' names loads the same way.",
            ANY_NAMES,
        ),
        _build(COGVIDEOX_5B_T2V, SIZE, FPS, "psa_cogvideox_4steps", lora=COGVIDEOX_PSA_LORA),
    ),
    Workflow(
        "cogvideox15_5b_t2v",
        "CogVideoX1.5-5B, text to video",
        "1360 x 768, 81 frames at 16 a second (45,106 tokens with the prompt), 50 steps; the first of them stay dense.",
        (BASELINE, DIAL, EVEN, ANY_NAMES),
        _build(COGVIDEOX15_5B_T2V, SIZE_15, FPS_15, "psa_cogvideox15"),
    ),
    Workflow(
        "cogvideox15_5b_i2v",
        "CogVideoX1.5-5B, image to video",
        "A start image and a prompt; 1360 x 768, 81 frames at 16 a second, 50 steps.",
        (BASELINE, DIAL, IMAGE, EVEN, ANY_NAMES),
        _build(COGVIDEOX15_5B_I2V, SIZE_15, FPS_15, "psa_cogvideox15_i2v", from_image=True),
    ),
)
