"""Tiny Video Model: the trained model that comes with the pack, ready to sample."""

from __future__ import annotations

from comfy_api.latest import io

from ..psa_core.hosts.comfyui.tiny_video import load_tiny_video


class PSATinyVideoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PSATinyVideoModel",
            display_name="Tiny Video Model",
            category="PSA",
            description=(
                "Loads the video model that comes with the pack: Wan's architecture with 17 million parameters, "
                "trained on moving shapes. It needs no download and samples on a CPU. Its prompts come from Tiny Video "
                "Prompt, and it has learned clips of 384 x 320 pixels and 33 frames."
            ),
            search_aliases=["psa demo model", "tiny wan", "test model", "load tiny video", "no download", "sparse"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="For the PSA Attention Patch or a sampler; its flow shift is set."),
                io.Vae.Output(tooltip="Decodes its latents."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_tiny_video())
