"""The models by name: where their weights are, and what they are made for."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import partial

_WAN, _WAN_IMAGE, _VACE = "WanPipeline", "WanImageToVideoPipeline", "WanVACEPipeline"
_COGVIDEOX = "CogVideoXPipeline"
# Sizes between 480p and 720p go with the nearer.
_SHORT_SIDE_OF_720P = 600


@dataclass(frozen=True)
class Model:
    """Defaults and limits of one model.

    Attributes:
        hub_id: of its weights in diffusers format; empty for bundled ones.
        width, height: in pixels; 0 to leave them to the pipeline.
        frames: of the video; likewise.
        pipeline: class in diffusers that makes videos from prompts; "" where it takes a picture.
        image_pipeline: that which makes them from a picture; "" for none.
        workflows: of a modular pipeline, those from a prompt and from a picture; empty for the others.
        distilled: whether guidance is in the weights, so that it takes neither a scale nor a negative prompt.
        presets: the model in the preset files; "" for one of its own name.
        steps: of the denoising.
        guidance: scale of classifier-free guidance; with two experts, that of the first.
        guidance_2: that of the second expert; None for a model without one.
        frames_per_second: of the file.
        size_step: width and height are multiples of it, in pixels.
        frames_step, frames_rest: frames are a multiple of the first and the second.
        most_frames: from ``least_frames`` on that it makes; 0 for as many as there is memory for.
        latents_per_token: frames of latent behind a frame of tokens.
        dtype: of the weights on a GPU, by torch's name.
        vae_dtype: that of the autoencoder.
        tiled: whether its autoencoder decodes in tiles, as whole videos of its size take more memory than its weights.
        shared: whether GPUs can share its heads.
        bundled: whether the weights are in this package, as those of the tiny model are.
    """

    hub_id: str
    width: int
    height: int
    frames: int
    _: KW_ONLY
    pipeline: str = ""
    image_pipeline: str = ""
    workflows: tuple[str, ...] = ()
    distilled: bool = False
    presets: str = ""
    steps: int = 50
    guidance: float
    guidance_2: float | None = None
    frames_per_second: int
    size_step: int = 16
    frames_step: int = 4
    frames_rest: int = 1
    least_frames: int = 0
    most_frames: int = 0
    latents_per_token: int = 1
    dtype: str = "bfloat16"
    vae_dtype: str = "bfloat16"
    tiled: bool = False
    shared: bool = True
    bundled: bool = False

    @property
    def frames_per_token(self) -> int:
        """Video frames behind a frame of tokens, by which scenes are counted; those of Mochi and MiniMax H3 in frames
        of latent."""
        by_latent = self.frames_step in (_MOCHI_STEP, _H3_STEP)
        return self.latents_per_token * (1 if by_latent else self.frames_step)

    def token_frames(self, frames: int) -> int:
        """Frames of tokens of a video."""
        if self.frames_step == _H3_STEP:
            return frames // _H3_STEP * 5 + 2
        return math.ceil(((frames - 1) // self.frames_step + 1) / self.latents_per_token)

    def flow_shift(self, width: int, height: int) -> float | None:
        """How far noise levels move towards noise, which a larger picture needs more of; None to leave them alone."""
        if {self.pipeline, self.image_pipeline}.isdisjoint((_WAN, _WAN_IMAGE, _VACE)):
            return None
        return 5.0 if min(width, height) >= _SHORT_SIDE_OF_720P else 3.0


_MOCHI_STEP, _H3_STEP = 6, 17
# As diffusers' documentation has it: Wan's decoder loses detail in half precision.
_wan_sizes = partial(Model, frames_per_second=16, vae_dtype="float32")
_wan = partial(_wan_sizes, pipeline=_WAN, guidance=5.0)
_wan_image = partial(_wan_sizes, image_pipeline=_WAN_IMAGE)
_vace = partial(_wan_sizes, pipeline=_VACE, guidance=5.0)
_skyreels = partial(_wan_sizes, guidance=6.0, presets="Wan2.1_14b")
# Either text and video are in one attention, or it is none that diffusers shares.
_not_shared = partial(Model, shared=False)
_cogvideox = partial(_not_shared, pipeline=_COGVIDEOX, guidance=6.0, frames_per_second=8)
_cogvideox_image = partial(
    _not_shared, image_pipeline="CogVideoXImageToVideoPipeline", guidance=6.0, frames_per_second=8
)
_hunyuan = partial(_not_shared, guidance=6.0, frames_per_second=24, tiled=True)
_hunyuan_1_5 = partial(_hunyuan, presets="HunyuanVideo1.5")
_kandinsky = partial(Model, guidance=5.0, frames_per_second=24, tiled=True, presets="Kandinsky5")
_cosmos = partial(_not_shared, guidance=7.0, size_step=16)

MODELS = {
    "Wan2.1_1.3b": _wan("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 1280, 720, 69),
    "Wan2.1_14b": _wan("Wan-AI/Wan2.1-T2V-14B-Diffusers", 1280, 720, 69),
    "Wan2.1_14b_I2V": _wan_image(
        "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", 1280, 720, 81, guidance=5.0, presets="Wan2.1_14b"
    ),
    "Wan2.1_1.3b_VACE": _vace("Wan-AI/Wan2.1-VACE-1.3B-diffusers", 832, 480, 81, presets="Wan2.1_1.3b"),
    "Wan2.1_14b_VACE": _vace("Wan-AI/Wan2.1-VACE-14B-diffusers", 1280, 720, 81, presets="Wan2.1_14b"),
    "Wan2.2_5B": _wan(
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers", 1280, 704, 121, frames_per_second=24, size_step=32, image_pipeline=_WAN_IMAGE
    ),
    "Wan2.2_A14B": _wan("Wan-AI/Wan2.2-T2V-A14B-Diffusers", 1280, 768, 69, steps=40, guidance=4.0, guidance_2=3.0),
    "Wan2.2_A14B_I2V": _wan_image(
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers", 1280, 720, 81, steps=40, guidance=3.5, guidance_2=3.5, presets="Wan2.2_A14B"
    ),
    "SkyReels_V2_14b": _skyreels(
        "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers", 960, 544, 97, pipeline="SkyReelsV2Pipeline", frames_per_second=24
    ),
    "SkyReels_V2_14b_I2V": _skyreels(
        "Skywork/SkyReels-V2-I2V-14B-540P-Diffusers", 960, 544, 97, image_pipeline="SkyReelsV2ImageToVideoPipeline",
        guidance=5.0, frames_per_second=24,
    ),
    "CogVideo_2b": _cogvideox("zai-org/CogVideoX-2b", 720, 480, 49, dtype="float16", vae_dtype="float16"),
    "CogVideo_5b": _cogvideox("zai-org/CogVideoX-5b", 720, 480, 49),
    "CogVideo_5b_I2V": _cogvideox_image("zai-org/CogVideoX-5b-I2V", 720, 480, 49, presets="CogVideo_5b"),
    "CogVideo1.5_5b": _cogvideox("zai-org/CogVideoX1.5-5B", 1360, 768, 81, frames_per_second=16, latents_per_token=2),
    "CogVideo1.5_5b_I2V": _cogvideox_image(
        "zai-org/CogVideoX1.5-5B-I2V", 1360, 768, 81, frames_per_second=16, latents_per_token=2,
        presets="CogVideo1.5_5b",
    ),
    "LTX-Video": Model(
        "Lightricks/LTX-Video", 704, 480, 161, pipeline="LTXPipeline", image_pipeline="LTXImageToVideoPipeline",
        guidance=3.0, frames_per_second=25, size_step=32, frames_step=8,
    ),
    "LTX-2": Model(
        "Lightricks/LTX-2", 768, 512, 121, pipeline="LTX2Pipeline", image_pipeline="LTX2ImageToVideoPipeline",
        steps=40, guidance=4.0, frames_per_second=24, size_step=32, frames_step=8,
    ),
    "HunyuanVideo": _hunyuan("hunyuanvideo-community/HunyuanVideo", 1280, 720, 129, pipeline="HunyuanVideoPipeline"),
    "HunyuanVideo_I2V": _hunyuan(
        "hunyuanvideo-community/HunyuanVideo-I2V", 1280, 720, 129, image_pipeline="HunyuanVideoImageToVideoPipeline",
        presets="HunyuanVideo",
    ),
    "HunyuanVideo1.5": _hunyuan_1_5(
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v", 1280, 720, 121, pipeline="HunyuanVideo15Pipeline"
    ),
    "HunyuanVideo1.5_I2V": _hunyuan_1_5(
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v", 1280, 720, 121,
        image_pipeline="HunyuanVideo15ImageToVideoPipeline",
    ),
    "Kandinsky5": _kandinsky(
        "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers", 768, 512, 121, pipeline="Kandinsky5T2VPipeline"
    ),
    "Kandinsky5_I2V": _kandinsky(
        "kandinskylab/Kandinsky-5.0-I2V-Pro-sft-5s-Diffusers", 768, 512, 121, image_pipeline="Kandinsky5I2VPipeline"
    ),
    "Cosmos1": _cosmos(
        "nvidia/Cosmos-1.0-Diffusion-7B-Text2World", 1280, 704, 121, pipeline="CosmosTextToWorldPipeline", steps=36,
        frames_per_second=30, frames_step=8,
    ),
    "Cosmos1_I2V": _cosmos(
        "nvidia/Cosmos-1.0-Diffusion-7B-Video2World", 1280, 704, 121, image_pipeline="CosmosVideoToWorldPipeline",
        steps=36, frames_per_second=30, frames_step=8, presets="Cosmos1",
    ),
    "Cosmos_Predict2": _cosmos(
        "nvidia/Cosmos-Predict2-2B-Video2World", 1280, 704, 93, image_pipeline="Cosmos2VideoToWorldPipeline", steps=35,
        frames_per_second=16,
    ),
    "MiniMax_H3": Model(
        "MiniMaxAI/MiniMax-H3", 1344, 768, 124, pipeline="MiniMaxH3ModularPipeline",
        image_pipeline="MiniMaxH3ModularPipeline", workflows=("t2va", "fl2va"), guidance=1.0, distilled=True,
        frames_per_second=24, size_step=32, frames_step=_H3_STEP, frames_rest=5, least_frames=124, most_frames=345,
    ),
    "Mochi": _not_shared(
        "genmo/mochi-1-preview", 848, 480, 85, pipeline="MochiPipeline", steps=64, guidance=4.5, frames_per_second=30,
        frames_step=_MOCHI_STEP, tiled=True,
    ),
    "tiny_video": _wan("", 384, 320, 33, steps=20, guidance=4.0, frames_per_second=12, bundled=True),
}  # fmt: skip
