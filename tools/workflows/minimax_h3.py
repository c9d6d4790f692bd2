"""MiniMax H3: video with sound, as the stock template makes it."""

from __future__ import annotations

from .canvas import Canvas, Output, Workflow
from .model_files import MINIMAX_H3, MINIMAX_H3_AUDIO_VAE, MINIMAX_H3_TEXT, MINIMAX_H3_VAE
from .parts import BASELINE, DIAL, VIDEO_SIZE, load_unet, psa, report

SIZE = {"width": 1344, "height": 768, "length": 124}
FPS, STEPS = 24, 20
SOUND_PROMPT = (
    "A red fox walks through deep snow between birch trees at dawn, its breath visible in the cold air, soft golden "
    "light, slow tracking shot, shallow depth of field. Audio: snow creaking under its paws, wind, far birdsong."
)


def _text_to_video(canvas: Canvas) -> None:
    canvas.group("Models")
    model = load_unet(canvas, MINIMAX_H3)
    clip = canvas.add("CLIPLoader", clip_name=MINIMAX_H3_TEXT, type="minimax", device="default")
    vae = canvas.add("VAELoader", vae_name=MINIMAX_H3_VAE)
    audio_vae = canvas.add("VAELoader", vae_name=MINIMAX_H3_AUDIO_VAE)
    (patched,) = psa(canvas, model)
    canvas.group("Prompt and size")
    conditioned = canvas.add("MiniMaxH3ImageToVideo", size=(400, 420), clip=clip, vae=vae, prompt=SOUND_PROMPT, **SIZE)
    canvas.group("Sample and save")
    noise = canvas.sampler("RandomNoise", noise_seed=0)
    guider = canvas.add("BasicGuider", model=patched, conditioning=conditioned)
    sampler = canvas.add("KSamplerSelect", sampler_name="res_multistep")
    sigmas = canvas.add("BasicScheduler", model=patched, scheduler="simple", steps=STEPS, denoise=1.0)
    samples = canvas.add(
        "SamplerCustomAdvanced",
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=Output(conditioned.node, 1),
    )
    frames = canvas.add("VAEDecode", samples=samples, vae=vae)
    sound = canvas.add("VAEDecodeAudio", samples=samples, vae=audio_vae)
    video = canvas.add("CreateVideo", images=frames, audio=sound, fps=float(FPS))
    canvas.add("SaveVideo", size=VIDEO_SIZE, video=video, filename_prefix="video/psa_minimax_h3")
    report(canvas, samples, patched)


MINIMAX = (
    Workflow(
        "minimax_h3_t2v",
        "MiniMax H3, text to video with sound",
        "1344 x 768, 124 frames at 24 a second (37,296 tokens of video), 20 steps. Text and sound stay exact for every "
        "token of the video.",
        (
            BASELINE,
            DIAL,
            "A start image: connect a Load Image to `first_frame`.",
            "With the turbo LoRA put its loader before the patch, and take its 8 steps: `quality` fits them.",
        ),
        _text_to_video,
    ),
)
