"""The models by name: where their weights are, and what they are made for."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial

_WAN, _COGVIDEOX = "WanPipeline", "CogVideoXPipeline"
# Sizes between 480p and 720p go with the nearer.
_SHORT_SIDE_OF_720P = 600


@dataclass(frozen=True)
class Model:
    """Defaults and limits of one model.

    Attributes:
        hub_id: of its weights in diffusers format; empty for bundled ones.
        width, height: in pixels.
        frames: of the video.
        pipeline: class in diffusers.
        steps: of the denoising.
        guidance: scale of classifier-free guidance; with two experts, that of the first.
        guidance_2: that of the second expert; None for a model without one.
        frames_per_second: of the file.
        size_step: width and height are multiples of it, in pixels.
        frames_per_token: video frames behind a frame of tokens.
        dtype: of the weights on a GPU, by torch's name.
        vae_dtype: that of the autoencoder.
        bundled: whether the weights are in this package, as those of the tiny model are.
    """

    hub_id: str
    width: int
    height: int
    frames: int
    _: KW_ONLY
    pipeline: str
    steps: int = 50
    guidance: float
    guidance_2: float | None = None
    frames_per_second: int
    size_step: int = 16
    frames_per_token: int = 4
    dtype: str = "bfloat16"
    vae_dtype: str = "bfloat16"
    bundled: bool = False

    def flow_shift(self, width: int, height: int) -> float | None:
        """How far noise levels move towards noise, which a larger picture needs more of; None for CogVideoX."""
        if self.pipeline != _WAN:
            return None
        return 5.0 if min(width, height) >= _SHORT_SIDE_OF_720P else 3.0


# As diffusers' documentation has it: Wan's decoder loses detail in half precision.
_wan = partial(Model, pipeline=_WAN, guidance=5.0, frames_per_second=16, vae_dtype="float32")
_cogvideox = partial(Model, pipeline=_COGVIDEOX, guidance=6.0, frames_per_second=8)

MODELS = {
    "Wan2.1_1.3b": _wan("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 1280, 720, 69),
    "Wan2.1_14b": _wan("Wan-AI/Wan2.1-T2V-14B-Diffusers", 1280, 720, 69),
    "Wan2.2_5B": _wan("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 1280, 704, 121, frames_per_second=24, size_step=32),
    "Wan2.2_A14B": _wan("Wan-AI/Wan2.2-T2V-A14B-Diffusers", 1280, 768, 69, steps=40, guidance=4.0, guidance_2=3.0),
    "CogVideo_2b": _cogvideox("zai-org/CogVideoX-2b", 720, 480, 49, dtype="float16", vae_dtype="float16"),
    "CogVideo_5b": _cogvideox("zai-org/CogVideoX-5b", 720, 480, 49),
    "CogVideo1.5_5b": _cogvideox("zai-org/CogVideoX1.5-5B", 1360, 768, 81, frames_per_second=16, frames_per_token=8),
    "tiny_video": _wan("", 384, 320, 33, steps=20, guidance=4.0, frames_per_second=12, bundled=True),
}
