"""The tiny model as a diffusers pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

from .text import PromptEncoder, PromptTokenizer

WEIGHTS = Path(__file__).parent / "weights"
TRANSFORMER = WEIGHTS / "psa_tiny_video.safetensors"
AUTOENCODER = WEIGHTS / "psa_tiny_video_vae.safetensors"
# That of the training.
FLOW_SHIFT = 3.0


def load_pipeline(dtype: torch.dtype = torch.float32) -> Any:
    """The ``WanPipeline`` of the tiny model, on the CPU.

    It takes prompts of its own closed language (:func:`~psa_core.tiny_video.vocabulary.read_prompt`).

    Args:
        dtype: of the transformer; the autoencoder stays in float32.
    """
    pipeline = WanPipeline(
        tokenizer=PromptTokenizer(),
        text_encoder=PromptEncoder(),
        vae=_load(AutoencoderKLWan, AUTOENCODER, torch.float32),
        transformer=_load(WanTransformer3DModel, TRANSFORMER, dtype),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
        ),
    )
    pipeline.transformer.eval()
    return pipeline


def _load(kind: Any, file: Path, dtype: torch.dtype) -> Any:
    """A network from a file with Wan's own names; its sizes lie beside the file."""
    return kind.from_single_file(str(file), config=str(WEIGHTS / file.stem), torch_dtype=dtype, local_files_only=True)
