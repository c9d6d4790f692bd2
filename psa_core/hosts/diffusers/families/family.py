"""The transformers that can be patched: where their blocks are and what their inputs say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

from ...settings.sizes import Grid

_COMPONENTS = ("transformer", "transformer_2")
# The same in the autoencoders of all the models here.
_FRAMES_PER_LATENT = 4


class Inputs(NamedTuple):
    """What one forward pass says about itself.

    Attributes:
        timestep: the scheduler's, for every video of the batch or for every token.
        latents: noisy, with what else the model reads along with them.
        grid: (frames, height, width) of the video in tokens.
        text_length: text tokens in front of the video tokens.
        frames_per_token: video frames behind a frame of tokens.
    """

    timestep: torch.Tensor
    latents: torch.Tensor
    grid: Grid
    text_length: int
    frames_per_token: int


class Family(NamedTuple):
    """One kind of transformer.

    Attributes:
        blocks: the attribute that holds its blocks; each has its self-attention in ``attn1``.
        inputs: transformer and arguments of its forward pass by name -> what they say.
    """

    blocks: str
    inputs: Callable[[Any, dict[str, Any]], Inputs]


def _wan_inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents = call["hidden_states"]
    frames, height, width = latents.shape[2:]
    patch_frames, patch_height, patch_width = transformer.config.patch_size
    grid = frames // patch_frames, height // patch_height, width // patch_width
    return Inputs(torch.as_tensor(call["timestep"]), latents, grid, 0, _FRAMES_PER_LATENT * patch_frames)


def _cogvideox_inputs(transformer: Any, call: dict[str, Any]) -> Inputs:
    latents = call["hidden_states"]
    _, frames, _, height, width = latents.shape
    # CogVideoX 1.0 has no patch size in time.
    patch, patch_frames = transformer.config.patch_size, transformer.config.patch_size_t or 1
    grid = frames // patch_frames, height // patch, width // patch
    text_length = call["encoder_hidden_states"].shape[1]
    return Inputs(torch.as_tensor(call["timestep"]), latents, grid, text_length, _FRAMES_PER_LATENT * patch_frames)


FAMILIES: dict[type, Family] = {
    WanTransformer3DModel: Family("blocks", _wan_inputs),
    CogVideoXTransformer3DModel: Family("transformer_blocks", _cogvideox_inputs),
}


def family_of(transformer: torch.nn.Module) -> Family:
    """The family of a transformer that :func:`transformers_of` has found."""
    return next(family for kind, family in FAMILIES.items() if isinstance(transformer, kind))


def transformers_of(target: Any) -> dict[str, torch.nn.Module]:
    """The transformers of a pipeline by their names in it, or the one that was given, as ``transformer``.

    Raises:
        TypeError: there is none, or one that cannot be patched; the message says what can.
    """
    whole = not isinstance(target, torch.nn.Module)
    components = {name: getattr(target, name, None) for name in _COMPONENTS} if whole else {_COMPONENTS[0]: target}
    # torch.compile wraps a module in another.
    found = {name: getattr(x, "_orig_mod", x) for name, x in components.items() if x is not None}
    if found and all(isinstance(x, tuple(FAMILIES)) for x in found.values()):
        return found
    kinds = " or ".join(kind.__name__ for kind in FAMILIES)
    held = ", ".join(type(x).__name__ for x in found.values() if x is not target)
    given = type(target).__name__ + (f" with {held}" if held else "")
    raise TypeError(f"only a {kinds}, or a pipeline with one, can be patched, not {given}")
