"""What a family of transformers says of itself: where its self-attention is, and how the tokens of a call lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ....settings.sinks import Sinks
from ....settings.sizes import Grid
from ...layout import Layout, video_first


class Tokens(NamedTuple):
    """What lies where among the tokens of a forward pass.

    Attributes:
        grid: (frames, height, width) of the video in tokens; None when unknown.
        frames_per_token: video frames behind a frame of tokens; 1 where scenes are counted in frames of latent.
        front: sinks in front of the video.
        text_behind: whether what is behind the video is its text.
        grid_optional: whether calls run sparse in the order they have where the grid is unknown, rather than dense.
        unpadded: int ``[B]``, how many tokens of each video are no padding, all of which is behind them; None for all.
            A mask is then there for nothing else.
        leading: reference frames before the clip, 0-dim; None for none.
    """

    grid: Grid | None = None
    frames_per_token: int = 1
    front: Sinks = ()
    text_behind: bool = False
    grid_optional: bool = False
    unpadded: torch.Tensor | None = None
    leading: torch.Tensor | None = None

    def layout(self, tokens: int) -> Layout:
        """Where the video lies in a call of so many tokens."""
        return video_first(self.grid, tokens, self.front, self.text_behind)


class Inputs(NamedTuple):
    """What one forward pass says about itself.

    Attributes:
        timestep: the scheduler's, for every video of the batch or for every token.
        latents: noisy, with what else the model reads along with them.
        tokens: of the forward pass.
    """

    timestep: torch.Tensor
    latents: torch.Tensor
    tokens: Tokens


class Family(NamedTuple):
    """One kind of transformer.

    Attributes:
        attention: paths of its self-attention modules, ``*`` for each of a list.
        inputs: transformer and arguments of its forward pass by name -> what they say.
        rising: whether timesteps rise from step to step.
    """

    attention: tuple[str, ...]
    inputs: Callable[[Any, dict[str, Any]], Inputs]
    rising: bool = False

    def modules(self, transformer: torch.nn.Module) -> list[Any]:
        """The self-attention modules of a transformer, which its layers are numbered by."""
        return [module for path in self.attention for module in _at(transformer, path)]


def _at(transformer: torch.nn.Module, path: str) -> list[Any]:
    found: list[Any] = [transformer]
    for name in path.split("."):
        found = [x for each in found for x in (each if name == "*" else [getattr(each, name)])]
    return found


def heads_of(module: Any) -> int:
    """Heads of an attention module."""
    return int(module.num_heads if hasattr(module, "num_heads") else module.heads)


def grid_of(size: tuple[int, ...], patch_size: tuple[int, ...]) -> Grid:
    """Tokens of latents whose last whole patches a model leaves out."""
    frames, height, width = (n // p for n, p in zip(size, patch_size, strict=True))
    return frames, height, width
