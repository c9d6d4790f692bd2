"""Tiny random pipelines of the families beside Wan 2 and CogVideoX; saved as folders, they load without a download.

LTX-2, HunyuanVideo 1.5 and Kandinsky 5, whose encoders of text take long to build, are given :data:`EMBEDDED` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers

from .tiny_pipelines import _text_settings, _tokenizer, _wan_vae, wan_pipeline

_HEADS, _HEAD_DIM, _CHANNELS, _TEXT_DIM = 2, 16, 4, 16
_SIZES: dict[str, Any] = {"num_attention_heads": _HEADS, "attention_head_dim": _HEAD_DIM}
_LAYERS = 2


def _t5() -> Any:
    return transformers.T5EncoderModel(transformers.T5Config(**_text_settings())).eval()


def _flow(**settings: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


def wan_vace() -> Any:
    transformer = diffusers.WanVACETransformer3DModel(
        **_SIZES, in_channels=_CHANNELS, out_channels=_CHANNELS, text_dim=_TEXT_DIM, freq_dim=16, ffn_dim=32,
        num_layers=1, vace_layers=[0], vace_in_channels=2 * _CHANNELS + 64,
    )  # fmt: skip
    return diffusers.WanVACEPipeline(**_parts(wan_pipeline(transformer=transformer.eval())))


def wan_image() -> Any:
    """Wan 2.1 from a picture, without the encoder that some have of it."""
    transformer = diffusers.WanTransformer3DModel(
        **_SIZES, in_channels=2 * _CHANNELS + 4, out_channels=_CHANNELS, text_dim=_TEXT_DIM, freq_dim=16, ffn_dim=32,
        num_layers=_LAYERS,
    )  # fmt: skip
    parts = _parts(wan_pipeline(transformer=transformer.eval()))
    return diffusers.WanImageToVideoPipeline(**parts, image_encoder=None, image_processor=None)


def skyreels_v2() -> Any:
    transformer = diffusers.SkyReelsV2Transformer3DModel(
        **_SIZES, in_channels=_CHANNELS, out_channels=_CHANNELS, text_dim=_TEXT_DIM, freq_dim=16, ffn_dim=32,
        num_layers=_LAYERS,
    )  # fmt: skip
    return diffusers.SkyReelsV2Pipeline(**_parts(wan_pipeline(transformer=transformer.eval())))


def _parts(pipeline: Any) -> dict[str, Any]:
    return {name: part for name, part in pipeline.components.items() if part is not None}


def ltx() -> Any:
    transformer = diffusers.LTXVideoTransformer3DModel(
        **_SIZES, in_channels=_CHANNELS, out_channels=_CHANNELS, num_layers=_LAYERS,
        cross_attention_dim=_HEADS * _HEAD_DIM, caption_channels=_TEXT_DIM,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=_CHANNELS, block_out_channels=(4, 4, 4, 4), decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    return diffusers.LTXPipeline(_flow(), vae.eval(), _t5(), _tokenizer(), transformer.eval())


def ltx_condition() -> Any:
    """A pipeline that nothing is known of: it gives its model positions instead of sizes."""
    return diffusers.LTXConditionPipeline(**ltx().components)


def ltx2() -> Any:
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    sound = {"audio_num_attention_heads": _HEADS, "audio_attention_head_dim": 8, "audio_cross_attention_dim": 16}
    transformer = diffusers.LTX2VideoTransformer3DModel(
        **_SIZES, **sound, in_channels=_CHANNELS, out_channels=_CHANNELS, num_layers=_LAYERS, cross_attention_dim=32,
        audio_in_channels=4, audio_out_channels=4, caption_channels=_TEXT_DIM,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=_CHANNELS, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1),
        decoder_spatial_padding_mode="zeros",
    )  # fmt: skip
    audio_vae = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, latent_channels=2, ch_mult=(1,), num_res_blocks=1, resolution=32, mel_bins=8
    )
    connectors = LTX2TextConnectors(
        caption_channels=_TEXT_DIM, text_proj_in_factor=2,
        **{f"{stream}_connector_{name}": size for stream in ("video", "audio")
           for name, size in (("num_attention_heads", 2), ("attention_head_dim", 8), ("num_layers", 1),
                              ("num_learnable_registers", 4))},
    )  # fmt: skip
    vocoder = LTX2Vocoder(
        in_channels=16, hidden_channels=32, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]],
    )  # fmt: skip
    parts = (vae.eval(), audio_vae.eval(), None, None, connectors.eval(), transformer.eval(), vocoder.eval())
    return diffusers.LTX2Pipeline(_flow(), *parts)


def mochi() -> Any:
    transformer = diffusers.MochiTransformer3DModel(
        **_SIZES, in_channels=12, num_layers=_LAYERS, pooled_projection_dim=32, text_embed_dim=_TEXT_DIM,
        time_embed_dim=8,
    )  # fmt: skip
    sizes = {"encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4}
    vae = diffusers.AutoencoderKLMochi(**sizes, layers_per_block=(1,) * 5)
    return diffusers.MochiPipeline(_flow(invert_sigmas=True), vae.eval(), _t5(), _tokenizer(), transformer.eval())


def _hunyuan_vae() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=_CHANNELS, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    ).eval()


def hunyuan_video() -> Any:
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        **_SIZES, in_channels=_CHANNELS, out_channels=_CHANNELS, num_layers=1, num_single_layers=1, mlp_ratio=1.0,
        num_refiner_layers=1, text_embed_dim=_TEXT_DIM, pooled_projection_dim=8, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    small = {"vocab_size": 258, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    llama = transformers.LlamaModel(transformers.LlamaConfig(hidden_size=_TEXT_DIM, **small))
    clip = transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=8, eos_token_id=1, **small))
    return diffusers.HunyuanVideoPipeline(
        llama.eval(), _tokenizer(), transformer.eval(), _hunyuan_vae(), _flow(), clip.eval(), _tokenizer()
    )


def hunyuan_video_1_5() -> Any:
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        **_SIZES, in_channels=2 * _CHANNELS + 1, out_channels=_CHANNELS, num_layers=_LAYERS, num_refiner_layers=1,
        mlp_ratio=1.0, text_embed_dim=_TEXT_DIM, text_embed_2_dim=6, image_embed_dim=5, rope_axes_dim=(4, 6, 6),
        target_size=64, task_type="t2v",
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=_CHANNELS, block_out_channels=(16,) * 5, layers_per_block=1,
        downsample_match_channel=False, upsample_match_channel=False,
    )  # fmt: skip
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=6.0)
    return diffusers.HunyuanVideo15Pipeline(None, None, transformer.eval(), vae.eval(), _flow(), None, None, guider)


def kandinsky5() -> Any:
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=_CHANNELS, in_text_dim=_TEXT_DIM, in_text_dim2=6, time_dim=16, out_visual_dim=_CHANNELS,
        model_dim=_HEADS * _HEAD_DIM, ff_dim=32, num_text_blocks=1, num_visual_blocks=_LAYERS, axes_dims=(4, 6, 6),
    )  # fmt: skip
    return diffusers.Kandinsky5T2VPipeline(transformer.eval(), _hunyuan_vae(), None, None, None, None, _flow())


def cosmos() -> Any:
    transformer = diffusers.CosmosTransformer3DModel(
        **_SIZES, in_channels=_CHANNELS + 1, out_channels=_CHANNELS, num_layers=_LAYERS, mlp_ratio=1.0,
        text_embed_dim=_TEXT_DIM, adaln_lora_dim=4, max_size=(8, 24, 24), concat_padding_mask=False,
        extra_pos_embed_type=None,
    )  # fmt: skip
    scheduler = _flow(use_karras_sigmas=True)
    parts = {"transformer": transformer.eval(), "vae": _wan_vae(), "scheduler": scheduler}
    return diffusers.Cosmos2VideoToWorldPipeline(_t5(), _tokenizer(), **parts, safety_checker=_Allows())


class _Allows:
    """In place of the guardrail, which is a model of its own."""

    def to(self, *_: Any) -> None:
        pass

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def _embedded_1_5() -> dict[str, torch.Tensor]:
    prompt = {
        "prompt_embeds": torch.randn(1, 9, _TEXT_DIM), "prompt_embeds_mask": torch.arange(9)[None] < 7,
        "prompt_embeds_2": torch.randn(1, 4, 6), "prompt_embeds_mask_2": torch.arange(4)[None] < 2,
    }  # fmt: skip
    return prompt | {f"negative_{name}": x for name, x in prompt.items()}


def _embedded_kandinsky() -> dict[str, Any]:
    tokens = torch.tensor([0, 9], dtype=torch.int32)
    prompt = {
        "prompt_embeds_qwen": torch.randn(1, 9, _TEXT_DIM), "prompt_embeds_clip": torch.randn(1, 6),
        "prompt_cu_seqlens": tokens,
    }  # fmt: skip
    return prompt | {f"negative_{name}": x for name, x in prompt.items()}


def _embedded_ltx2() -> dict[str, Any]:
    prompt = {"prompt_embeds": torch.randn(1, 8, 2 * _TEXT_DIM), "prompt_attention_mask": torch.ones(1, 8)}
    return prompt | {f"negative_{name}": x for name, x in prompt.items()}


# What a pipeline takes in place of a prompt, by its family.
EMBEDDED = {"hunyuan_video_1_5": _embedded_1_5, "kandinsky5": _embedded_kandinsky, "ltx2": _embedded_ltx2}
FAMILIES: dict[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (
        wan_vace, wan_image, skyreels_v2, ltx, ltx2, mochi, hunyuan_video, hunyuan_video_1_5, kandinsky5, cosmos
    )
}  # fmt: skip
