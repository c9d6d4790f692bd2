"""What a MODEL's network holds and computes once its patches are in place."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from safetensors.torch import load_file, save_file


class TestWeights(io.ComfyNode):
    """Writes the patched parameters into a file and hands the MODEL on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`nonce` is read by nobody: another value makes ComfyUI run the node again."""
        return io.Schema(
            node_id="PSATestWeights",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.String.Input("path"), io.Int.Input("nonce", default=0)],
            outputs=[io.Model.Output()],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, path: str, nonce: int) -> io.NodeOutput:
        """Load the MODEL with its patches merged into the weights."""
        comfy.model_management.load_models_gpu([model], force_patch_weights=True)
        weights = model.model.diffusion_model.state_dict()
        save_file({name: weight.clone().contiguous() for name, weight in weights.items()}, path)
        return io.NodeOutput(model)


class TestForward(io.ComfyNode):
    """Runs the patched network once on the tensors of a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`inputs` holds the network's arguments by name; what it computes goes to `outputs`."""
        return io.Schema(
            node_id="PSATestForward",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.String.Input("inputs"), io.String.Input("outputs")],
            outputs=[io.Model.Output()],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, inputs: str, outputs: str) -> io.NodeOutput:
        """Load the MODEL and call its network."""
        comfy.model_management.load_models_gpu([model])
        with torch.no_grad():
            out = model.model.diffusion_model(**load_file(inputs))
        save_file({"out": out.contiguous()}, outputs)
        return io.NodeOutput(model)
