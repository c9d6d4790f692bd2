"""What a family of video models says of itself: how its tokens lie, and which attention calls are the video's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ....settings.sizes import Grid
from ...reasons import Request

# What calls are that refine a prompt before or beside the video.
WITHIN_PROMPT = "attention within the prompt"


class Layout(NamedTuple):
    """Where the video lies among the tokens of its self-attention.

    Attributes:
        grid: (frames, height, width) in tokens; None when unknown.
        text_length: text tokens in front of the video.
    """

    grid: Grid | None
    text_length: int = 0


class Inputs(NamedTuple):
    """What a forward is given.

    Attributes:
        latent: shape of the video's latent, ``[B, C, T, H, W]``; models of other things have other shapes.
        text_tokens, image_tokens: tokens of the conditioning, of the text and of a CLIP image.
        conditions: keyword arguments of ComfyUI's ``BaseModel.apply_model``.
    """

    latent: tuple[int, ...]
    text_tokens: int = 0
    image_tokens: int = 0
    conditions: Mapping[str, Any] = {}


@dataclass(frozen=True)
class VideoModel:
    """A model whose attention runs sparse.

    Attributes:
        family: model name in the preset files.
        patch_size: (frames, height, width) of latent that make one token.
        heads, head_dim: attention heads, and numbers a head; 0 when unknown.
        layers: transformer blocks; None when unknown.
        variant: ComfyUI's name of a model among its kin, such as ``"vace"``.
    """

    family: str
    patch_size: tuple[int, int, int]
    heads: int = 0
    head_dim: int = 0
    layers: int | None = None
    variant: str = ""

    # Video frames behind a frame of latent, after the first.
    frames_per_latent: ClassVar[int] = 4
    # Whether calls run sparse in raster order where the grid is unknown, rather than stay dense.
    grid_optional: ClassVar[bool] = False

    @property
    def frames_per_token(self) -> int:
        """Video frames behind a frame of tokens, in which scenes are counted."""
        return self.frames_per_latent * self.patch_size[0]

    def grid(self, latent: tuple[int, ...]) -> Grid | None:
        """Video tokens of a latent ``[B, C, T, H, W]``, which models pad to whole patches; None for other latents."""
        if len(latent) != 5:
            return None
        frames, height, width = (-(-n // p) for n, p in zip(latent[2:], self.patch_size, strict=True))
        return frames, height, width

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        """How the tokens of a call lie, if it is the video's self-attention.

        Args:
            inputs: of the forward.
            request: what the call asks for.
            options: ComfyUI's ``transformer_options`` of the call.
        """
        return Layout(self.grid(inputs.latent))

    def prompts(self, inputs: Inputs) -> tuple[int, ...]:
        """How many tokens the prompts have that the video attends to in calls of their own."""
        return inputs.text_tokens, inputs.image_tokens

    def other(self, inputs: Inputs, request: Request, layout: Layout) -> str:
        """What a call is that is not the video's self-attention, in a few words; "" where nothing speaks for that."""
        return ""
