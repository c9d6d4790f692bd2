"""MiniMax H3: text, references, sound and video in one sequence.

| tokens | what is exact | evidence |
|---|---|---|
| text, keyframes or references | every query sees them | core's own sparse attention keeps them exact |
| sound | every query sees it, and its own rows are dense | core's default; sparse rows cost sync |
| video, last | | |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ....settings.sinks import Sink
from ...layout import Layout, video_last
from ...reasons import Request
from .video_model import Inputs, VideoModel


@dataclass(frozen=True)
class MiniMaxH3(VideoModel):
    """MiniMax H3, whose autoencoder makes 5 frames of latent of 17: scenes are counted in frames of latent."""

    frames_per_latent: ClassVar[int] = 1
    mask_rule: ClassVar[str] = "cogvideox"

    @classmethod
    def recognise(cls, unet: dict[str, Any]) -> MiniMaxH3 | None:
        if unet.get("image_model") != "minimax_h3":
            return None
        heads, head_dim = unet.get("num_attention_heads", 56), unet.get("attention_head_dim", 128)
        return cls("MiniMax_H3", tuple(unet.get("patch_size", (1, 2, 2))), heads, head_dim, unet.get("num_layers", 50))

    def layout(self, inputs: Inputs, request: Request, options: Mapping[str, Any]) -> Layout:
        grid = self.grid(inputs.latent)
        if grid is None:
            return Layout(None)
        front = request.q_tokens - math.prod(grid)
        sound = _sound_start(inputs, options, request.q_tokens)
        if sound is None or not 0 < sound < front:
            return video_last(grid, request.q_tokens)
        return Layout(grid, (Sink(0, sound, dense_rows=False), Sink(sound, front)))


def _sound_start(inputs: Inputs, options: Mapping[str, Any], tokens: int) -> int | None:
    """The first token of the sound that is made, as the model lays its sequence out; None when it does not say.

    Where the layout that came with the prompt is of other lengths, the model has made one of its own.
    """
    payload = inputs.conditions.get("minimax_payload") or {}
    # ComfyUI from 0.35 on hands the layout to each call.
    layout = options.get("minimax_h3_layout") or payload.get("layout")
    segments = getattr(layout, "segments", ())
    if not segments or segments[-1][1] != tokens:
        return None
    starts = [start for start, _, kind in segments if kind == "audio"]
    return int(starts[-1]) if starts else None
