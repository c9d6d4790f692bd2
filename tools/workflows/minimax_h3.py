"""MiniMax H3: video with sound, as the stock templates make it, from words or from an image."""

from __future__ import annotations

from .canvas import Build, Canvas, Output, Workflow
from .columns import patched_model, save_and_report
from .model_files import MINIMAX_H3, MINIMAX_H3_AUDIO_VAE, MINIMAX_H3_TEXT, MINIMAX_H3_TURBO, MINIMAX_H3_VAE
from .parts import BASELINE, DIAL, promote_size, start_image

SIZE = {"width": 1344, "height": 768, "length": 124}
FPS, STEPS, TURBO_STEPS = 24, 20, 8
SOUND_PROMPT = (
    "A red fox walks through deep snow between birch trees at dawn, its breath visible in the cold air, soft golden "
    "light, slow tracking shot, shallow depth of field. Audio: snow creaking under its paws, wind, far birdsong."
)
# The text encoder sees the image under this name.
IMAGE_PROMPT = (
    "The subject of <Picture 1> turns its head slowly and looks into the camera, a light wind moves the background. "
    "Audio: wind, rustling leaves."
)
SAME_PROPORTIONS = "Give `width` and `height` the proportions of your image."
LAST_FRAME = "A last image too: open the subgraph and connect its input to `last_frame` of `MiniMaxH3ImageToVideo`."


def _video(prefix: str, from_image: bool = False, turbo: bool = False) -> Build:
    def build(canvas: Canvas) -> None:
        patched = patched_model(canvas, MINIMAX_H3, lora=MINIMAX_H3_TURBO if turbo else None)
        canvas.group("Video")
        frame = {"first_frame": start_image(canvas)} if from_image else {}
        with canvas.within(f"{'Image' if from_image else 'Text'} to video with sound (MiniMax H3)"):
            canvas.group("Encoders")
            clip = canvas.add("CLIPLoader", clip_name=MINIMAX_H3_TEXT, type="minimax", device="default")
            vae = canvas.add("VAELoader", vae_name=MINIMAX_H3_VAE)
            audio_vae = canvas.add("VAELoader", vae_name=MINIMAX_H3_AUDIO_VAE)
            canvas.group("Prompt and size")
            text = IMAGE_PROMPT if from_image else SOUND_PROMPT
            conditioned = canvas.add(
                "MiniMaxH3ImageToVideo", size=(400, 420), clip=clip, vae=vae, prompt=text, **frame, **SIZE
            )
            canvas.promote(conditioned, prompt="prompt")
            promote_size(canvas, conditioned)
            samples = _sample(canvas, patched, conditioned, TURBO_STEPS if turbo else STEPS)
            frames = canvas.add("VAEDecode", samples=samples, vae=vae)
            sound = canvas.add("VAEDecodeAudio", samples=samples, vae=audio_vae)
            video = canvas.add("CreateVideo", images=frames, audio=sound, fps=float(FPS))
        save_and_report(canvas, video, prefix, samples, patched)

    return build


def _sample(canvas: Canvas, model: Output, conditioned: Output, steps: int) -> Output:
    canvas.group("Sample and decode")
    noise = canvas.sampler("RandomNoise", noise_seed=0)
    guider = canvas.add("BasicGuider", model=model, conditioning=conditioned)
    sampler = canvas.add("KSamplerSelect", sampler_name="res_multistep")
    sigmas = canvas.add("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0)
    canvas.promote(noise, noise_seed="seed")
    canvas.promote(sigmas, steps="steps")
    return canvas.add(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=conditioned.other(1),
    )


MINIMAX = (
    Workflow(
        "minimax_h3_t2v",
        "MiniMax H3, text to video with sound",
        "1344 x 768, 124 frames at 24 a second (37,296 tokens of video), 20 steps. Text and sound stay exact for every "
        "token of the video.",
        (
            BASELINE,
            DIAL,
            "With the turbo LoRA put its loader before the patch, and take its 8 steps: `quality` fits them.",
        ),
        _video("psa_minimax_h3"),
    ),
    Workflow(
        "minimax_h3_i2v",
        "MiniMax H3, image to video with sound",
        "A start image and a prompt; 1344 x 768, 124 frames at 24 a second, 20 steps. Text, image and sound stay exact "
        "for every token of the video.",
        (BASELINE, DIAL, SAME_PROPORTIONS, LAST_FRAME),
        _video("psa_minimax_h3_i2v", from_image=True),
    ),
    Workflow(
        "minimax_h3_i2v_turbo",
        "MiniMax H3, image to video with sound in 8 steps",
        "With the turbo LoRA, before the patch; a start image, 1344 x 768, 124 frames at 24 a second.",
        (BASELINE, DIAL, SAME_PROPORTIONS, LAST_FRAME),
        _video("psa_minimax_h3_turbo", from_image=True, turbo=True),
    ),
)
