"""Wan 2.1 and 2.2: the video alone in self-attention, text and CLIP image in calls of their own.

| model | tokens of self-attention | beside the video |
|---|---|---|
| text, image and first-last-frame to video, Fun, ATI, 5B, Camera, WanDancer | video | |
| VACE | video, its references the first frames | |
| Animate, Animate 2 | video, its reference the first frame | |
| Animate 2, with a pose video | a frame of the video's queries, all of its keys and a frame of the pose's | a sink |
| the same, the pose's own | pose video | |
| Phantom | video, subjects | a sink |
| Fun with a reference | reference, video | a sink |
| S2V | video, reference, motion | a sink, or ordinary tokens if they are many |
| HuMo | video, reference | a sink |
| SCAIL | references, video, pose at half the resolution | the references a sink, the pose ordinary tokens |
| Bernini | video, contexts | ordinary tokens, or a sink if they are few |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from ....settings.sinks import Sink, text_in_front
from ....settings.sizes import Grid
from ...layout import Layout, video_first
from ...reasons import Request
from .video_model import Inputs, VideoModel


@dataclass(frozen=True)
class Wan(VideoModel):
    """Wan 2.1 and 2.2. Wan 2.2 A14B's text-to-video experts have exactly Wan 2.1 14B's layers and count as that.

    Attributes:
        takes_reference: whether a reference picture goes in front of the video, as Fun's does.
        vace_layers: blocks of VACE's control branch.
    """

    takes_reference: bool = False
    vace_layers: int = 0

    of_first_release: ClassVar[bool] = True

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> Wan | None:
        if unet.get("image_model") != "wan2.1":
            return None
        heads, dim = unet["num_heads"], unet["dim"]
        variant = unet.get("model_type") or ""
        sizes = tuple(unet["patch_size"]), heads, dim // heads, unet.get("num_layers")
        reference, vace = bool(unet.get("in_dim_ref_conv")), unet.get("vace_layers") or 0
        return cls(_family(unet), *sizes, variant, takes_reference=reference, vace_layers=vace)

    def before(self) -> Wan:
        family = _SMALL if self.family == _TINY else self.family
        return dataclasses.replace(self, family=family, as_before=True)

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        added = inputs.conditions.get("time_dim_concat")
        subjects = 0 if added is None else int(added.shape[2])
        # The model's own word comes first: it knows of frames that were added to the latent.
        sizes = options.get("grid_sizes")
        grid = self.grid(inputs.latent) if sizes is None else (int(sizes[0]), int(sizes[1]), int(sizes[2]))
        if self.as_before or grid is None:
            return Layout(grid, trailing=subjects)
        frames, height, width = grid
        if self.variant == "animate2" and _is_pose(request, grid):
            return _with_pose(request, grid)
        reference, front, in_grid = inputs.conditions.get("reference_latent"), 0, subjects
        if reference is not None and self.variant in ("scail", "scail2"):
            front = int(reference.shape[2]) * height * width
            in_grid += int(reference.shape[2])
        elif reference is not None and self.takes_reference:
            front = height * width
        # Compiled, and in other nodes' forwards, the model says nothing, and the latent has the video alone.
        video = frames if sizes is None else frames - in_grid
        return video_first((video, height, width), request.q_tokens, text_in_front(front))

    def layer(self, calls: int, options: Mapping[str, Any], inputs: Inputs) -> int:
        contexts = inputs.conditions.get("vace_context")
        if self.vace_layers and self.layers and contexts is not None and "block_index" not in options:
            order = _with_vace(self.layers, self.vace_layers, int(contexts.shape[1]))
            return order[min(calls, len(order) - 1)]
        return super().layer(calls, options, inputs)

    def other(self, inputs: Inputs, request: Request, layout: Layout, options: Mapping[str, Any]) -> str:
        is_pose = self.variant == "animate2" and layout.grid is not None and _is_pose(request, layout.grid)
        return "attention with the pose video" if self.as_before and is_pose else ""


# Asked on every attention call of a compiled model.
@lru_cache(maxsize=8)
def _with_vace(layers: int, vace_layers: int, contexts: int) -> tuple[int, ...]:
    """The numbers of a forward's blocks in their order: each of VACE's, once a context, has that of the one before."""
    every = max(layers // vace_layers, 1)
    return tuple(layer for layer in range(layers) for _ in range(1 + contexts * (layer % every == 0)))


_SMALL = "Wan2.1_1.3b"
# The bundled model, and the width and number of its layers, which no other has.
_TINY, _TINY_SIZES = "tiny_video", (256, 12)


def _family(unet: dict[str, Any]) -> str:
    if unet.get("out_dim") == 48:
        return "Wan2.2_5B"
    # Wan 2.1 sees its first frame through CLIP as well (img_emb, hence type i2v); 2.2 through latent channels only.
    image_channels = unet.get("in_dim") == 36 and unet.get("model_type") == "t2v"
    if image_channels or unet.get("model_type") in ("camera_2.2", "s2v", "animate"):
        return "Wan2.2_A14B"
    if (unet["dim"], unet.get("num_layers")) == _TINY_SIZES:
        return _TINY
    return "Wan2.1_14b" if unet["dim"] >= 5120 else _SMALL


def _is_pose(request: Request, grid: Grid) -> bool:
    """Whether a call of Wan Animate 2 has to do with its pose video.

    That video has a branch of its own, without the reference frame. Then each frame of the clip looks at the whole
    clip, and all but the first at their frame of the pose as well.
    """
    frame, clip = grid[1] * grid[2], math.prod(grid)
    branch = request.q_tokens == request.k_tokens == clip - frame
    return branch or (request.q_tokens == frame and request.k_tokens in (clip, clip + frame) and grid[0] > 1)


def _with_pose(request: Request, grid: Grid) -> Layout:
    """Where the tokens of such a call lie: in the grid of the pose video, or frame by frame without one."""
    frames, height, width = grid
    if request.q_tokens == request.k_tokens:
        return Layout((frames - 1, height, width), leading=0)
    clip = math.prod(grid)
    pose = (Sink(clip, request.k_tokens, dense_rows=False),) if request.k_tokens > clip else ()
    return Layout(None, pose, parts=frames)
