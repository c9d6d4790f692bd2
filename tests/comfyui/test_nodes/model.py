"""What ComfyUI took a checkpoint for."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io
from server import PromptServer


class TestModel(io.ComfyNode):
    """Shows which model a loader made of a file and hands it on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same out."""
        return io.Schema(
            node_id="PSATestModel",
            category="psa/test",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Report the class and the sizes found onto the node, as JSON."""
        network = model.model.diffusion_model
        heads = sorted({block.self_attn.num_heads for block in network.blocks})
        found = {"class": type(model.model).__name__, "layers": len(network.blocks), "heads": heads}
        PromptServer.instance.send_progress_text(json.dumps(found), cls.hidden.unique_id)
        return io.NodeOutput(model)
