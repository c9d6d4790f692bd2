"""Empty latents of any shape."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from server import PromptServer

from .sizes import random_tensor, size_inputs


class TestLatent(io.ComfyNode):
    """Zeros [B, C, T, H, W]; with `first_frame`, Wan 2.2 TI2V's given first frame behind a noise mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`nonce` is read by nobody: another value makes ComfyUI sample again instead of answering from its cache."""
        return io.Schema(
            node_id="PSATestLatent",
            category="psa/test",
            inputs=[
                io.Int.Input("batch_size", default=1, min=1, max=16),
                io.Int.Input("channels", default=16, min=1, max=256),
                *size_inputs(),
                io.Boolean.Input("first_frame", default=False),
                io.Int.Input("nonce", default=0, min=0),
            ],
            outputs=[io.Latent.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, batch_size: int, channels: int, frames: int, height: int, width: int, first_frame: bool, nonce: int
    ) -> io.NodeOutput:
        """Build the latent, and its noise mask if it has a given frame; report the shape onto the node."""
        samples = torch.zeros(batch_size, channels, frames, height, width)
        PromptServer.instance.send_progress_text(str(list(samples.shape)), cls.hidden.unique_id)
        if not first_frame:
            return io.NodeOutput({"samples": samples})
        samples[:, :, 0] = random_tensor(105, channels, height, width)
        mask = torch.ones(batch_size, 1, frames, height, width)
        mask[:, :, 0] = 0.0
        return io.NodeOutput({"samples": samples, "noise_mask": mask})
