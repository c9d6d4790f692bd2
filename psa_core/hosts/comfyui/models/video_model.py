"""What a family of video models says of itself: how its tokens lie, and which attention calls are the video's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ....settings.sizes import Grid
from ...layout import Layout
from ...reasons import Request

# What calls are that refine a prompt before or beside the video.
WITHIN_PROMPT = "attention within the prompt"
AN_IMAGE = "an image: unknown_models = all takes images too"


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
        family: model name in the preset files; one that is in none has the presets of any model.
        patch_size: (frames, height, width) of latent that make one token.
        heads, head_dim: attention heads, and numbers a head; 0 when unknown.
        layers: transformer blocks; None when unknown.
        variant: ComfyUI's name of a model among its kin, such as ``"vace"``.
        images: whether latents of one frame run sparse too.
        as_before: whether tokens lie as the first release took them to, for graphs from then.
    """

    family: str
    patch_size: tuple[int, int, int]
    heads: int = 0
    head_dim: int = 0
    layers: int | None = None
    variant: str = ""
    images: bool = True
    as_before: bool = False

    # Whether graphs from the first release have it, with settings that keep their meaning.
    of_first_release: ClassVar[bool] = False
    # Video frames behind a frame of latent, after the first; 1 where scenes are counted in frames of latent.
    frames_per_latent: ClassVar[int] = 4
    # Whether calls run sparse in raster order where the grid is unknown, rather than stay dense.
    grid_optional: ClassVar[bool] = False
    # Whether calls of its blocks say a ``block_type``, and those within the prompt none.
    says_block_type: ClassVar[bool] = False
    # Of the radial masks' rules (``RadialMask.model_type``) the one for such models.
    mask_rule: ClassVar[str] = "wan"

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> VideoModel | None:
        """The model of a ComfyUI ``unet_config``; None for another family's."""
        return None

    @property
    def frames_per_token(self) -> int:
        """Video frames behind a frame of tokens, in which scenes are counted."""
        return self.frames_per_latent * self.patch_size[0]

    def before(self) -> VideoModel:
        """The model as the first release took it, for graphs from then."""
        return dataclasses.replace(self, as_before=True)

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

    def layer(self, calls: int, options: Mapping[str, Any], inputs: Inputs) -> int:
        """The number of a call's transformer block.

        Args:
            calls: self-attention calls before it in the forward, of as many queries; those of a layer's parts are one.
            options: of the call.
            inputs: of the forward.
        """
        index = options.get("block_index")
        return index if isinstance(index, int) else calls

    def prompts(self, inputs: Inputs) -> tuple[int, ...]:
        """How many tokens the prompts have that the video attends to in calls of their own."""
        return inputs.text_tokens, inputs.image_tokens

    def other(self, inputs: Inputs, request: Request, layout: Layout, options: Mapping[str, Any]) -> str:
        """What a call is that is not the video's self-attention, in a few words; "" where nothing speaks for that."""
        is_self = request.q_tokens == request.k_tokens
        is_whole = layout.grid is not None and request.q_tokens >= math.prod(layout.grid)
        could_be_whole = is_whole and not (self.says_block_type and "block_type" not in options)
        if is_self and request.q_tokens in (inputs.text_tokens, inputs.image_tokens) and not could_be_whole:
            return WITHIN_PROMPT
        is_image = len(inputs.latent) != 5 or inputs.latent[2] == 1
        return AN_IMAGE if is_self and is_image and not self.images else ""
