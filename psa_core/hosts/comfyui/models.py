"""Which video model a MODEL is, read off what is loaded rather than off a file's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# The same in the autoencoders of all the models here.
_FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class VideoModel:
    """A model whose attention the pack knows.

    Attributes:
        kind: ``"wan"`` (video tokens only) or ``"cogvideox"`` (text tokens first, then video).
        family: model name in the preset files.
        patch_size: (frames, height, width) of latent that make one token.
        variant: ComfyUI's name of a Wan among its kin, such as ``"vace"``.
        layers: transformer blocks; None when unknown.
    """

    kind: str
    family: str
    patch_size: tuple[int, int, int]
    variant: str = ""
    layers: int | None = None

    @property
    def frames_per_token(self) -> int:
        """Video frames behind a frame of tokens, in which scenes are counted."""
        return _FRAMES_PER_LATENT * self.patch_size[0]


def recognise(base_model: Any) -> VideoModel | None:
    """The video model behind a ComfyUI ``BaseModel``; None for one that the pack does not know.

    Wan 2.2 A14B's text-to-video experts have exactly Wan 2.1 14B's layers and count as that.
    """
    unet = base_model.model_config.unet_config
    if unet.get("image_model") == "wan2.1":
        variant = unet.get("model_type") or ""
        return VideoModel("wan", _wan_family(unet), tuple(unet["patch_size"]), variant, unet.get("num_layers"))
    if unet.get("image_model") == "cogvideox":
        spatial = unet.get("patch_size", 2)
        temporal = unet.get("patch_size_t") or 1
        size = (temporal, spatial, spatial)
        return VideoModel("cogvideox", _cogvideox_family(unet), size, layers=unet.get("num_layers"))
    return None


def _wan_family(unet: dict[str, Any]) -> str:
    if unet.get("out_dim") == 48:
        return "Wan2.2_5B"
    # Wan 2.1 sees its first frame through CLIP as well (img_emb, hence type i2v); 2.2 through latent channels only.
    image_channels = unet.get("in_dim") == 36 and unet.get("model_type") == "t2v"
    if image_channels or unet.get("model_type") in ("camera_2.2", "s2v", "animate"):
        return "Wan2.2_A14B"
    return "Wan2.1_14b" if unet["dim"] >= 5120 else "Wan2.1_1.3b"


def _cogvideox_family(unet: dict[str, Any]) -> str:
    if unet.get("patch_size_t"):
        return "CogVideo1.5_5b"
    return "CogVideo_5b" if unet["num_attention_heads"] >= 48 else "CogVideo_2b"


def attention_heads(base_model: Any) -> tuple[int, int]:
    """Attention heads and numbers a head of a model that :func:`recognise` knows."""
    unet = base_model.model_config.unet_config
    if unet.get("image_model") == "wan2.1":
        return unet["num_heads"], unet["dim"] // unet["num_heads"]
    return unet["num_attention_heads"], unet["attention_head_dim"]
