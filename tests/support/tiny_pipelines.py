"""Tiny random pipelines of diffusers, as folders that load without a download, and LoRAs for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

LAYERS = 2
HEADS, _HEAD_DIM = 2, 16
_TEXT_DIM, _CHANNELS = 16, 4
_PAD, _END = "<pad>", "</s>"


def save_wan_2_1(folder: Path) -> None:
    wan_pipeline().save_pretrained(folder)


def save_wan_2_2_5b(folder: Path) -> None:
    """With a timestep for every token, and the autoencoder that makes 16 x 16 pixels of a latent."""
    vae = _wan_vae(is_residual=True, in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16)
    wan_pipeline(vae=vae, expand_timesteps=True).save_pretrained(folder)


def save_wan_2_2_a14b(folder: Path) -> None:
    """Two experts, the second of which takes over half way, and a scheduler that calls its shift by another name."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    wan_pipeline(scheduler=scheduler, transformer_2=_wan_transformer(), boundary_ratio=0.8).save_pretrained(folder)


def save_cogvideox_2b(folder: Path) -> None:
    """Positions are added to tokens."""
    cogvideox_pipeline().save_pretrained(folder)


def save_cogvideox_5b(folder: Path) -> None:
    """Rotary embeddings."""
    cogvideox_pipeline(use_rotary_positional_embeddings=True).save_pretrained(folder)


def save_cogvideox1_5(folder: Path) -> None:
    """Tokens of two latent frames, and rotary embeddings."""
    cogvideox_pipeline(
        patch_size_t=2,
        patch_bias=False,
        use_rotary_positional_embeddings=True,
        # It takes no larger pictures than these, unlike 1.0.
        sample_width=300,
        sample_height=300,
    ).save_pretrained(folder)


def save_cogvideox_lora(folder: Path) -> None:
    """A LoRA that changes queries and keys, for every CogVideoX here."""
    _save_lora(_cogvideox_transformer(), diffusers.CogVideoXPipeline, folder)


def save_wan_lora(folder: Path) -> None:
    """A LoRA that changes queries and keys, for every Wan here."""
    _save_lora(_wan_transformer(), diffusers.WanPipeline, folder)


def wan_pipeline(**components: Any) -> Any:
    """Wan 2.1, but for these components."""
    defaults = {
        "transformer": _wan_transformer,
        "vae": _wan_vae,
        "scheduler": lambda: diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
        ),
    }
    made = {name: make() for name, make in defaults.items() if name not in components}
    encoder = transformers.UMT5EncoderModel(transformers.UMT5Config(**_text_settings())).eval()
    return diffusers.WanPipeline(tokenizer=_tokenizer(), text_encoder=encoder, **made, **components)


def _wan_transformer() -> Any:
    return diffusers.WanTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        text_dim=_TEXT_DIM,
        freq_dim=16,
        ffn_dim=32,
        num_layers=LAYERS,
    ).eval()


def _wan_vae(**settings: Any) -> Any:
    means = {"latents_mean": [0.0] * _CHANNELS, "latents_std": [1.0] * _CHANNELS}
    return diffusers.AutoencoderKLWan(base_dim=4, z_dim=_CHANNELS, num_res_blocks=1, **means, **settings).eval()


def cogvideox_pipeline(**settings: Any) -> Any:
    """CogVideoX 1.0, but for these settings of its transformer."""
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4), latent_channels=_CHANNELS, layers_per_block=1, norm_num_groups=2
    ).eval()
    return diffusers.CogVideoXPipeline(
        tokenizer=_tokenizer(),
        text_encoder=transformers.T5EncoderModel(transformers.T5Config(**_text_settings())).eval(),
        vae=vae,
        transformer=_cogvideox_transformer(**settings),
        scheduler=diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
    )


def _cogvideox_transformer(**settings: Any) -> Any:
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        time_embed_dim=16,
        text_embed_dim=_TEXT_DIM,
        num_layers=LAYERS,
        **{"sample_width": 16, "sample_height": 12, "sample_frames": 9, **settings},
    ).eval()


def _text_settings() -> dict[str, Any]:
    return {"vocab_size": 258, "d_model": _TEXT_DIM, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def _tokenizer() -> Any:
    """A token a byte, as no tokenizer that has to be learned or downloaded would do it."""
    vocabulary = {_PAD: 0, _END: 1}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END)


def _save_lora(transformer: Any, pipeline: Any, folder: Path) -> None:
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)  # zeros otherwise, which change nothing
    layers = get_peft_model_state_dict(transformer)
    pipeline.save_lora_weights(folder, transformer_lora_layers=layers)
