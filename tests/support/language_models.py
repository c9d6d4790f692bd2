"""Tiny random language models, and those that see, made from their settings alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

# Which tokens are a video's, transformers 4 finds out by itself.
_WANTS_TYPES = not transformers.__version__.startswith("4.")
LAYERS, VOCABULARY = 2, 64
_IMAGE, _VIDEO, _START, _END = 60, 61, 62, 63
_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_TOKENS: dict[str, Any] = {
    "image_token_id": _IMAGE,
    "video_token_id": _VIDEO,
    "vision_start_token_id": _START,
    "vision_end_token_id": _END,
    "tie_word_embeddings": False,
}
_ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}


def qwen2_5_vl(**options: Any) -> Any:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 256}
    vision |= {"fullatt_block_indexes": [1], "window_size": 56}
    text = _TEXT | {"rope_parameters": _ROPE, "rope_scaling": _ROPE}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_TOKENS)
    return _made(transformers.Qwen2_5_VLForConditionalGeneration, config, options)


def qwen3_vl(**options: Any) -> Any:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 256}
    vision |= {"patch_size": 14, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    text = _TEXT | {"head_dim": 64, "rope_parameters": _ROPE, "rope_scaling": _ROPE}
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **_TOKENS)
    return _made(transformers.Qwen3VLForConditionalGeneration, config, options)


def qwen3(**options: Any) -> Any:
    """Text alone."""
    config = transformers.Qwen3Config(head_dim=64, **_TEXT)
    return _made(transformers.Qwen3ForCausalLM, config, options)


def gpt_oss(**options: Any) -> Any:
    """Text alone, a sliding window in every other layer, and sinks that the model has learned."""
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1}
    config = transformers.GptOssConfig(head_dim=64, sliding_window=64, **experts, **_TEXT)
    return _made(transformers.GptOssForCausalLM, config, options)


MODELS: tuple[Callable[..., Any], ...] = (qwen2_5_vl, qwen3_vl, qwen3)


def _made(kind: Any, config: Any, options: dict[str, Any]) -> Any:
    model = kind._from_config(config, **options).eval()
    # Random weights of the usual size give attention that looks nowhere in particular.
    for name, weights in model.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            weights.data.mul_(8)
    return model


def prompt(tokens: int, batch: int = 1, video: tuple[int, int, int] | None = None) -> dict[str, Any]:
    """Inputs of a model: random text, with a video's tokens inside for models that see.

    Args:
        video: (frames, height, width) in patches, before 2 x 2 of them make a token.
    """
    ids = torch.randint(1, 60, (batch, tokens))
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if video is not None:
        frames, height, width = video
        seen = frames * height * width // 4
        ids[:, 4] = _START
        ids[:, 5 : 5 + seen] = _VIDEO
        ids[:, 5 + seen] = _END
        if _WANTS_TYPES:
            inputs["mm_token_type_ids"] = (ids == _VIDEO).int() * 2
        inputs["pixel_values_videos"] = torch.randn(batch * frames * height * width, 3 * 2 * 14 * 14)
        inputs["video_grid_thw"] = torch.tensor([video] * batch)
    return inputs
