"""A tiny random transformer of each family that diffusers has, with the inputs of one forward pass.

Frames, height and width are those of the video's grid; a patch size of 1 keeps latents as small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import pytest
import torch

from .diffusers_models import Model

GRID = FRAMES, HEIGHT, WIDTH = 4, 6, 8
VIDEO = FRAMES * HEIGHT * WIDTH
LAYERS = 2
HEADS, HEAD_DIM = 2, 64
CHANNELS, AXES = HEADS * HEAD_DIM, (16, 24, 24)
TEXT, TEXT_DIM = 12, 8
BATCH = 2
_LATENTS = BATCH, 4, FRAMES, HEIGHT, WIDTH
_SIZES = {"num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM}


class Family(NamedTuple):
    """What a test has to know of a family.

    Attributes:
        make: its model; batches are :data:`BATCH` videos, all alike.
        layers: of its self-attention.
        calls: of it in one forward pass.
        front, behind: tokens before and behind the video that are sinks.
        rising: whether timesteps rise from step to step.
    """

    make: Callable[[], Model]
    layers: int = LAYERS
    calls: int = LAYERS
    front: int = 0
    behind: int = 0
    rising: bool = False


def _kind(name: str) -> Any:
    kind = getattr(diffusers, name, None)
    if kind is None:
        pytest.skip(f"this diffusers has no {name}")
    return kind


class _Model(Model):
    """With text of its own size, and no weights that are zero, as if it was trained."""

    def __init__(self, transformer: torch.nn.Module, latents: tuple[int, ...], **inputs: Any) -> None:
        for weight in transformer.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.1)
        text = torch.randn(BATCH, TEXT, TEXT_DIM)
        super().__init__(transformer.eval(), latents, **{"encoder_hidden_states": text, **inputs})

    def to(self, device: str, dtype: torch.dtype) -> Model:
        """Move weights and inputs; what a model keeps in float32 stays in it, as it does where weights are loaded."""
        super().to(device, dtype)
        kept = set(getattr(self.transformer, "_keep_in_fp32_modules", None) or ())
        for name, weight in self.transformer.named_parameters():
            if kept.intersection(name.split(".")):
                weight.data = weight.data.float()
        return self

    def __call__(self, timestep: float = 999.0) -> torch.Tensor:
        latents = self.inputs["hidden_states"]
        timesteps = torch.full((BATCH,), timestep, device=latents.device, dtype=latents.dtype)
        return self.transformer(timestep=timesteps, return_dict=False, **self.inputs)[0]


def _wan_settings(**settings: Any) -> dict[str, Any]:
    sizes = {"in_channels": 4, "out_channels": 4, "text_dim": TEXT_DIM, "freq_dim": 16, "ffn_dim": 32}
    return {**_SIZES, **sizes, "num_layers": LAYERS, "patch_size": (1, 1, 1), **settings}


def wan_vace() -> Model:
    """Its first frame is a reference."""
    settings = _wan_settings(vace_layers=[0], vace_in_channels=2 * 4 + 64)
    control = torch.randn(BATCH, 2 * 4 + 64, FRAMES, HEIGHT, WIDTH)
    control[:, 4:, 0] = 0
    return _Model(_kind("WanVACETransformer3DModel")(**settings), _LATENTS, control_hidden_states=control)


def wan_animate() -> Model:
    settings = _wan_settings(in_channels=12, latent_channels=4, image_dim=TEXT_DIM)
    settings |= {"motion_encoder_size": 16, "motion_style_dim": 8, "motion_dim": 4, "motion_encoder_dim": 8}
    settings |= {"motion_encoder_channel_sizes": {"4": 4, "8": 4, "16": 4}, "face_encoder_hidden_dim": 16}
    settings |= {"face_encoder_num_heads": 2, "inject_face_latents_blocks": LAYERS}
    return _Model(
        _kind("WanAnimateTransformer3DModel")(**settings),
        (BATCH, 12, FRAMES, HEIGHT, WIDTH),
        encoder_hidden_states_image=torch.randn(BATCH, 3, TEXT_DIM),
        pose_hidden_states=torch.randn(BATCH, 4, FRAMES - 1, HEIGHT, WIDTH),
        face_pixel_values=torch.randn(BATCH, 3, 1 + 4 * (FRAMES - 2), 16, 16),
    )


def skyreels_v2() -> Model:
    return _Model(_kind("SkyReelsV2Transformer3DModel")(**_wan_settings()), _LATENTS)


def chronoedit() -> Model:
    return _Model(_kind("ChronoEditTransformer3DModel")(**_wan_settings()), _LATENTS)


def _ltx_inputs() -> dict[str, Any]:
    return {"num_frames": FRAMES, "height": HEIGHT, "width": WIDTH}


def ltx(guides: int = 9) -> Model:
    """With guides behind the video."""
    transformer = _kind("LTXVideoTransformer3DModel")(
        **_SIZES,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        cross_attention_dim=CHANNELS,
        caption_channels=TEXT_DIM,
    )
    tokens = VIDEO + guides
    inputs = _ltx_inputs() | {"video_coords": torch.rand(BATCH, 3, tokens)}
    mask = torch.ones(BATCH, TEXT)
    return _Model(transformer, (BATCH, tokens, 4), encoder_attention_mask=mask, **inputs)


def ltx2() -> Model:
    audio = {"audio_num_attention_heads": HEADS, "audio_attention_head_dim": 8, "audio_cross_attention_dim": 16}
    transformer = _kind("LTX2VideoTransformer3DModel")(
        **_SIZES, **audio, in_channels=4, out_channels=4, num_layers=LAYERS, cross_attention_dim=CHANNELS,
        audio_in_channels=4, audio_out_channels=4, caption_channels=TEXT_DIM,
    )  # fmt: skip
    sound = {
        "audio_hidden_states": torch.randn(BATCH, VIDEO, 4),
        "audio_encoder_hidden_states": torch.randn(BATCH, TEXT, TEXT_DIM),
        "audio_num_frames": VIDEO,
    }
    return _Model(transformer, (BATCH, VIDEO, 4), **sound, **_ltx_inputs())


def hunyuan_video(text: tuple[int, ...] = (7, 7)) -> Model:
    """So many of the text's tokens are no padding, in each video."""
    transformer = _kind("HunyuanVideoTransformer3DModel")(
        **_SIZES, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, num_refiner_layers=1, mlp_ratio=1.0,
        patch_size=1, text_embed_dim=TEXT_DIM, pooled_projection_dim=8, rope_axes_dim=AXES, guidance_embeds=False,
    )  # fmt: skip
    mask = (torch.arange(TEXT) < torch.tensor(text)[:, None]).long()
    return _Model(transformer, _LATENTS, encoder_attention_mask=mask, pooled_projections=torch.randn(len(text), 8))


def hunyuan_video_1_5(picture: bool = True) -> Model:
    transformer = _kind("HunyuanVideo15Transformer3DModel")(
        **_SIZES, in_channels=4, out_channels=4, num_layers=LAYERS, num_refiner_layers=1, mlp_ratio=1.0,
        text_embed_dim=TEXT_DIM, text_embed_2_dim=6, image_embed_dim=5, rope_axes_dim=AXES,
    )  # fmt: skip
    return _Model(
        transformer,
        _LATENTS,
        encoder_attention_mask=(torch.arange(TEXT) < 7).long().expand(BATCH, -1),
        encoder_hidden_states_2=torch.randn(BATCH, 4, 6),
        encoder_attention_mask_2=(torch.arange(4) < 2).long().expand(BATCH, -1),
        image_embeds=torch.randn(BATCH, 3, 5) * picture,
    )


def kandinsky5() -> Model:
    transformer = _kind("Kandinsky5Transformer3DModel")(
        in_visual_dim=4, in_text_dim=TEXT_DIM, in_text_dim2=6, time_dim=16, out_visual_dim=4, patch_size=(1, 1, 1),
        model_dim=CHANNELS, ff_dim=32, num_text_blocks=1, num_visual_blocks=LAYERS, axes_dims=AXES,
    )  # fmt: skip
    return _Model(
        transformer,
        (BATCH, FRAMES, HEIGHT, WIDTH, 4),
        pooled_projections=torch.randn(BATCH, 6),
        visual_rope_pos=[torch.arange(n) for n in GRID],
        text_rope_pos=torch.arange(TEXT),
    )


def cosmos() -> Model:
    transformer = _kind("CosmosTransformer3DModel")(
        **_SIZES, in_channels=4, out_channels=4, num_layers=LAYERS, mlp_ratio=1.0, text_embed_dim=TEXT_DIM,
        adaln_lora_dim=4, max_size=(8, 12, 12), patch_size=(1, 1, 1), concat_padding_mask=False,
    )  # fmt: skip
    return _Model(transformer, _LATENTS)


def mochi(text: tuple[int, ...] = (7, 7)) -> Model:
    """As HunyuanVideo's."""
    transformer = _kind("MochiTransformer3DModel")(
        **_SIZES, patch_size=1, in_channels=4, num_layers=LAYERS, pooled_projection_dim=32, text_embed_dim=TEXT_DIM,
        time_embed_dim=8,
    )  # fmt: skip
    mask = torch.arange(TEXT) < torch.tensor(text)[:, None]
    return _Model(transformer, _LATENTS, encoder_attention_mask=mask)


class _MiniMaxH3(_Model):
    """Text, a keyframe, sound and video in one sequence; one video a batch."""

    KEYFRAME, SOUND = HEIGHT * WIDTH, 6

    def __init__(self) -> None:
        transformer = _kind("MiniMaxH3Transformer3DModel")(
            **_SIZES, hidden_size=32, num_layers=LAYERS, num_refiner_layers=1, ffn_dim=32, in_channels=4,
            audio_in_channels=3, patch_size=(1, 1, 1), text_dim=TEXT_DIM, freq_dim=8, time_embed_hidden_dim=16,
            time_embed_dim=16, rope_freq_dim=2,
        )  # fmt: skip
        sound = TEXT + self.KEYFRAME
        start, stop = sound + self.SOUND, sound + self.SOUND + VIDEO
        positions = torch.zeros(stop, 3, dtype=torch.float64)
        positions[:, 0] = torch.arange(stop)
        positions[start:] = 1.5 * torch.cartesian_prod(*(torch.arange(n) for n in GRID))
        kinds = [TEXT, self.KEYFRAME, self.SOUND, VIDEO]
        super().__init__(
            transformer,
            (1, self.KEYFRAME + VIDEO, 4),
            encoder_hidden_states=torch.randn(1, TEXT, TEXT_DIM),
            audio_hidden_states=torch.randn(1, self.SOUND, 3),
            timestep_indices=torch.repeat_interleave(torch.tensor([0, 1, 0, 0]), torch.tensor(kinds)),
            token_tags=torch.repeat_interleave(torch.tensor([0, 1, 2, 1]), torch.tensor(kinds)),
            position_ids=positions,
            video_indices=torch.cat([torch.arange(TEXT, sound), torch.arange(start, stop)]),
            audio_indices=torch.arange(sound, start),
            text_indices=torch.arange(TEXT),
        )

    def __call__(self, timestep: float = 0.0) -> torch.Tensor:
        # A keyframe keeps its noise level.
        timesteps = torch.tensor([timestep, 0.9], device=self.inputs["hidden_states"].device)
        return self.transformer(timestep=timesteps, return_dict=False, **self.inputs)[0]


def another() -> Model:
    """Of a family that is not known, with a layer of self-attention and one of cross-attention a block."""
    transformer = _kind("Transformer2DModel")(
        **_SIZES, in_channels=4, out_channels=4, num_layers=LAYERS, cross_attention_dim=TEXT_DIM, norm_num_groups=2
    )
    return _Model(transformer, (BATCH, 4, 2 * HEIGHT, 2 * WIDTH))  # as many tokens as the others


FAMILIES = {
    "wan_vace": Family(wan_vace, layers=LAYERS + 1, calls=LAYERS + 1),
    "wan_animate": Family(wan_animate),
    "skyreels_v2": Family(skyreels_v2),
    "chronoedit": Family(chronoedit),
    "ltx": Family(ltx, behind=9),
    "ltx2": Family(ltx2),
    "hunyuan_video": Family(hunyuan_video, behind=7),
    "hunyuan_video_1_5": Family(hunyuan_video_1_5, behind=3 + 2 + 7),
    "kandinsky5": Family(kandinsky5),
    "cosmos": Family(cosmos),
    "mochi": Family(mochi, calls=BATCH * LAYERS, behind=7, rising=True),
    "minimax_h3": Family(_MiniMaxH3, front=TEXT + _MiniMaxH3.KEYFRAME + _MiniMaxH3.SOUND, rising=True),
}
