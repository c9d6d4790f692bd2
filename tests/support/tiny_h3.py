"""A tiny random MiniMax H3, which diffusers has as a modular pipeline; saved as a folder, it loads without a download.

:class:`Processor` is in place of the one that transformers has for its language model, which needs torchvision.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from .tiny_pipelines import _tokenizer

LAYERS = 2
_TEXT_DIM, _CHANNELS, _SOUND = 16, 4, 4
# What the pipeline reads of the language model is a layer far up.
_TEXT_LAYERS = 51
_PATCH, _IMAGE = 16, 260
_VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def pipeline(workflow: str = "t2va") -> Any:
    made = diffusers.MiniMaxH3Blocks().get_workflow(workflow).init_pipeline()
    tokenizer = _tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": _VISION})
    made.update_components(
        transformer=_transformer(), vae=_vae(), audio_vae=_audio_vae(), text_encoder=_text_encoder(tokenizer),
        tokenizer=tokenizer, processor=Processor(), scheduler=diffusers.MiniMaxH3Scheduler(shift=12.0),
        audio_scheduler=diffusers.MiniMaxH3Scheduler(shift=3.0),
    )  # fmt: skip
    return made


def save(folder: Path) -> None:
    """Write it to a folder, which loads where this module has been imported."""
    made = pipeline()
    made.save_pretrained(str(folder), overwrite_modular_index=True)
    made.tokenizer.save_pretrained(folder / "processor")
    index = folder / "modular_model_index.json"
    document = json.loads(index.read_text(encoding="utf-8"))
    kind = [Processor.__module__, Processor.__name__]
    place = {"pretrained_model_name_or_path": str(folder), "subfolder": "processor"}
    document["processor"] = [*kind, {"type_hint": kind, **place}]
    index.write_text(json.dumps(document), encoding="utf-8")


def save_lora(folder: Path) -> None:
    """One that changes queries and keys."""
    transformer = _transformer()
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k"]))
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)  # zeros otherwise, which change nothing
    layers = get_peft_model_state_dict(transformer)
    diffusers.MiniMaxH3ModularPipeline.save_lora_weights(folder, transformer_lora_layers=layers)


class Processor:
    """Gives the language model a picture's patches, all of which are its mean."""

    merge_size = 2

    def __init__(self) -> None:
        self.image_processor = self

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Processor:
        return cls()

    def create_mm_token_type_ids(self, sequences: list[list[int]]) -> list[list[int]]:
        return [[int(token == _IMAGE) for token in sequence] for sequence in sequences]

    def __call__(self, images: list[Any], return_tensors: str) -> dict[str, torch.Tensor]:
        grids = [(1, image.height // _PATCH, image.width // _PATCH) for image in images]
        means = [torch.full((math.prod(grid), 3 * 2 * _PATCH**2), np.asarray(image).mean() / 255)
                 for grid, image in zip(grids, images, strict=True)]  # fmt: skip
        return {"pixel_values": torch.cat(means), "image_grid_thw": torch.tensor(grids)}


def _transformer() -> Any:
    return diffusers.MiniMaxH3Transformer3DModel(
        num_attention_heads=2, attention_head_dim=16, hidden_size=32, num_layers=LAYERS, num_refiner_layers=1,
        ffn_dim=32, in_channels=_CHANNELS, audio_in_channels=_SOUND, text_dim=_TEXT_DIM, freq_dim=8,
        time_embed_hidden_dim=16, time_embed_dim=16, rope_freq_dim=2,
    ).eval()  # fmt: skip


def _vae() -> Any:
    return diffusers.AutoencoderKLMiniMaxH3(
        latent_channels=_CHANNELS, block_out_channels=(4, 4, 4, 4, 4, 4), layers_per_block=1, norm_num_groups=2,
        decoder_num_layers=1, decoder_num_attention_heads=2, decoder_attention_head_dim=8,
        decoder_num_register_tokens=1, decoder_ffn_mult=1, latents_mean=[0.0] * _CHANNELS,
        latents_std=[1.0] * _CHANNELS,
    ).eval()  # fmt: skip


def _audio_vae() -> Any:
    return diffusers.AutoencoderKLMiniMaxH3Audio(
        encoder_dim=2, encoder_rates=(8, 100), latent_dim=8, latent_channels=_SOUND, num_attention_heads=2,
        decoder_dim=8, decoder_rates=(100, 8), decoder_kernel_sizes=(200, 16), resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1,),), latents_mean=[0.0] * _SOUND, latents_std=[1.0] * _SOUND,
    ).eval()  # fmt: skip


def _text_encoder(tokenizer: Any) -> Any:
    small = {"hidden_size": _TEXT_DIM, "intermediate_size": 16}
    text = {
        **small, "num_hidden_layers": _TEXT_LAYERS, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16,
        "vocab_size": len(tokenizer),
    }  # fmt: skip
    vision = {
        **small, "depth": 1, "num_heads": 1, "patch_size": _PATCH, "out_hidden_size": _TEXT_DIM,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
    }  # fmt: skip
    numbers = tokenizer.convert_tokens_to_ids(_VISION)
    assert numbers[2] == _IMAGE
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    config = transformers.Qwen3VLConfig(
        text_config=text, vision_config=vision, **dict(zip(names, numbers, strict=True))
    )
    return transformers.Qwen3VLForConditionalGeneration(config).eval()
