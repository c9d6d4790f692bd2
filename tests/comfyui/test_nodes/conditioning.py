"""Conditioning as the text encoders, WanImageToVideo and WanVaceToVideo leave it, made of noise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import node_helpers
import torch
from comfy.latent_formats import Wan21
from comfy_api.latest import io

from .sizes import random_tensor, size_inputs

LATENT_CHANNELS = 16
CLIP_VISION_SHAPE = (1, 257, 1280)
VACE_MASK_CHANNELS = 64

Conditioning = list[list[Any]]


class TestText(io.ComfyNode):
    """A prompt of any length."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Length and width are free: the tiny models have narrow text embeddings."""
        return io.Schema(
            node_id="PSATestText",
            category="psa/test",
            inputs=[
                io.Int.Input("tokens", default=16, min=1, max=4096),
                io.Int.Input("dim", default=64, min=1, max=4096),
                io.Int.Input("seed", default=0, min=0),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, tokens: int, dim: int, seed: int) -> io.NodeOutput:
        """What CLIPTextEncode returns, without a text encoder."""
        return io.NodeOutput([[random_tensor(seed, 1, tokens, dim), {}]])


class TestImage(io.ComfyNode):
    """A start image: its latent, its mask, and for Wan 2.1 what CLIP vision saw."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Positive and negative get the same entries, as from WanImageToVideo."""
        return io.Schema(
            node_id="PSATestImage",
            category="psa/test",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                *size_inputs(),
                io.Boolean.Input("clip_vision", default=False),
                io.Int.Input("seed", default=0, min=0),
            ],
            outputs=[io.Conditioning.Output("positive"), io.Conditioning.Output("negative")],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        frames: int,
        height: int,
        width: int,
        clip_vision: bool,
        seed: int,
    ) -> io.NodeOutput:
        """CogVideoX reads the image and ignores the mask."""
        mask = torch.ones(1, 1, frames, height, width)
        mask[:, :, 0] = 0.0
        image = random_tensor(seed, 1, LATENT_CHANNELS, frames, height, width)
        entries: dict[str, Any] = {"concat_latent_image": image, "concat_mask": mask}
        if clip_vision:
            hidden_states = random_tensor(seed + 1, *CLIP_VISION_SHAPE)
            entries["clip_vision_output"] = SimpleNamespace(penultimate_hidden_states=hidden_states)
        return _with_entries(positive, negative, entries)


class TestVace(io.ComfyNode):
    """A VACE control video with its mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """As WanVaceToVideo, in latents instead of pixels."""
        return io.Schema(
            node_id="PSATestVace",
            category="psa/test",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                *size_inputs(),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0),
                io.Int.Input("references", default=0, min=0),
                io.Int.Input("seed", default=0, min=0),
            ],
            outputs=[io.Conditioning.Output("positive"), io.Conditioning.Output("negative")],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        frames: int,
        height: int,
        width: int,
        strength: float,
        references: int,
        seed: int,
    ) -> io.NodeOutput:
        """Inactive and reactive halves side by side, and a mask channel for every pixel of a latent cell.

        The first `references` frames hold reference images. Of the others the second is one that is kept.

        ComfyUI pads an odd latent to whole patches but not its VACE frames, whose size the real node keeps even.
        """
        height, width = height + height % 2, width + width % 2
        control = random_tensor(seed, 1, 2 * LATENT_CHANNELS, frames, height, width)
        mask = torch.ones(1, VACE_MASK_CHANNELS, frames, height, width)
        control[:, LATENT_CHANNELS:, :references] = Wan21().process_out(torch.zeros(1, LATENT_CHANNELS, 1, 1, 1))
        mask[:, :, :references] = 0.0
        mask[:, :, references + 1 : references + 2] = 0.0
        entries = {"vace_frames": [control], "vace_mask": [mask], "vace_strength": [strength]}
        return _with_entries(positive, negative, entries)


class TestReference(io.ComfyNode):
    """A video that Wan has beside its own: in context, as Phantom's subjects, or as Animate 2's pose."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One conditioning in, the same with the reference out."""
        return io.Schema(
            node_id="PSATestReference",
            category="psa/test",
            inputs=[
                io.Conditioning.Input("conditioning"),
                *size_inputs(),
                io.Combo.Input("entry", options=["context_latents", "time_dim_concat", "pose_video_latent"]),
                io.Int.Input("seed", default=0, min=0),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(
        cls, conditioning: Conditioning, frames: int, height: int, width: int, entry: str, seed: int
    ) -> io.NodeOutput:
        """As core's nodes leave it."""
        latent = random_tensor(seed, 1, LATENT_CHANNELS, frames, height, width)
        value = [latent] if entry == "context_latents" else latent
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, {entry: value}))


def _with_entries(positive: Conditioning, negative: Conditioning, entries: dict[str, Any]) -> io.NodeOutput:
    return io.NodeOutput(
        node_helpers.conditioning_set_values(positive, entries),
        node_helpers.conditioning_set_values(negative, entries),
    )
