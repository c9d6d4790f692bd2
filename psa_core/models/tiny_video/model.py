"""The tiny model as a diffusers pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging as log

from .files import AUTOENCODER, FLOW_SHIFT, TRANSFORMER, WEIGHTS
from .text import PromptEncoder, PromptTokenizer


def load_pipeline(dtype: torch.dtype = torch.float32) -> Any:
    """The ``WanPipeline`` of the tiny model, on the CPU.

    It takes prompts of its own closed language (:func:`~psa_core.models.tiny_video.vocabulary.read_prompt`).

    Args:
        dtype: of the transformer; the autoencoder stays in float32.
    """
    return WanPipeline(
        tokenizer=PromptTokenizer(),
        text_encoder=PromptEncoder(),
        vae=load_autoencoder(),
        transformer=load_transformer(dtype),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
        ),
    )


def load_transformer(dtype: torch.dtype = torch.float32, folder: Path = WEIGHTS) -> Any:
    """The ``WanTransformer3DModel``, from the package's weights or from those of a training."""
    return _load(WanTransformer3DModel, folder / TRANSFORMER.name, "transformer", dtype)


def load_autoencoder(folder: Path = WEIGHTS) -> Any:
    """The ``AutoencoderKLWan`` in float32, likewise."""
    return _load(AutoencoderKLWan, folder / AUTOENCODER.name, "vae", torch.float32)


def _load(kind: Any, file: Path, sizes: str, dtype: torch.dtype) -> Any:
    """A network from a file with Wan's own names."""
    level = log.get_verbosity()
    # diffusers warns of parts that stay in float32, which they do.
    log.set_verbosity_error()
    try:
        return kind.from_single_file(
            str(file), config=str(WEIGHTS), subfolder=sizes, torch_dtype=dtype, local_files_only=True
        ).eval()
    finally:
        log.set_verbosity(level)
