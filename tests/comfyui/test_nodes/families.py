"""Random models of any family, built from their configs, and what they are given."""

from __future__ import annotations

import ast
import json
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.nested_tensor
import comfy.supported_models
import node_helpers
import torch
from comfy_api.latest import io

from .sizes import random_tensor


class TestFamily(io.ComfyNode):
    """A model of a family with random weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`kind` is a class of core's, `config` its `unet_config` as a Python literal.

        `more` is JSON put over that once the model is built; another `image_model` makes it one of no family.
        """
        return io.Schema(
            node_id="PSATestFamily",
            category="psa/test",
            inputs=[io.String.Input("kind"), io.String.Input("config"), io.String.Input("more", default="{}")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, kind: str, config: str, more: str) -> io.NodeOutput:
        """Build it as a loader does, in float32."""
        model_config = getattr(comfy.supported_models, kind)(ast.literal_eval(config))
        model_config.set_inference_dtype(torch.float32, None)
        model = model_config.get_model({}, "")
        _fill(model.diffusion_model)
        # Only now: models look at their config when they are built.
        model.model_config.unet_config = {**model.model_config.unet_config, **json.loads(more)}
        device = comfy.model_management.get_torch_device()
        return io.NodeOutput(comfy.model_patcher.ModelPatcher(model.eval(), device, torch.device("cpu")))


@torch.no_grad()
def _fill(network: torch.nn.Module) -> None:
    """Weights that keep activations near unit size, so that a change of attention shows in the sampled latent."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(network.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            noise /= noise[0].numel() ** 0.5
        elif name.endswith("weight"):
            noise = 1 + 0.02 * noise
        else:
            noise *= 0.2
        parameter.copy_(noise)
    for name, buffer in network.named_buffers():
        # MiniMax H3's, which comes with its checkpoints.
        if name == "rope.inv_freq":
            buffer.copy_(10000 ** -torch.linspace(0, 1, len(buffer)))


class TestPrompt(io.ComfyNode):
    """A prompt with what else families take in conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`entries` is JSON: name -> shape of a random tensor, or a number, or lists and mappings of these."""
        return io.Schema(
            node_id="PSATestPrompt",
            category="psa/test",
            inputs=[
                io.Int.Input("tokens", default=16, min=1, max=4096),
                io.Int.Input("dim", default=64, min=1, max=4096),
                io.Int.Input("seed", default=0, min=0),
                io.Combo.Input("mask", options=["none", "ones", "holes"], default="none"),
                io.String.Input("entries", default="{}"),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, tokens: int, dim: int, seed: int, mask: str, entries: str) -> io.NodeOutput:
        """Text, its mask, and the entries."""
        conditioning = [[random_tensor(seed, 1, tokens, dim), {"pooled_output": random_tensor(seed + 1, 1, 768)}]]
        values: dict[str, Any] = {}
        if mask != "none":
            values["attention_mask"] = torch.ones(1, tokens, dtype=torch.long)
            if mask == "holes":
                values["attention_mask"][:, tokens // 2 :] = 0
        for name, value in json.loads(entries).items():
            values[name] = _entry(value, seed + 2)
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, values))


def _entry(value: Any, seed: int) -> Any:
    """A list of numbers is the shape of a tensor, of ones in a mapping of that; within others likewise."""
    if isinstance(value, dict):
        if "ones" in value:
            return torch.ones(value["ones"])
        return {key: _entry(inner, seed) for key, inner in value.items()}
    if isinstance(value, list):
        if all(isinstance(size, int) for size in value):
            return random_tensor(seed, *value)
        return [_entry(inner, seed) for inner in value]
    return value


class TestStreams(io.ComfyNode):
    """Empty latents of any number of streams, as models have that make sound as well."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """`shapes` is JSON, a list of shapes; `nonce` is read by nobody."""
        return io.Schema(
            node_id="PSATestStreams",
            category="psa/test",
            inputs=[io.String.Input("shapes"), io.Int.Input("nonce", default=0, min=0)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, shapes: str, nonce: int) -> io.NodeOutput:
        """One stream is a tensor, more are nested."""
        streams = [torch.zeros(shape) for shape in json.loads(shapes)]
        return io.NodeOutput(
            {"samples": streams[0] if len(streams) == 1 else comfy.nested_tensor.NestedTensor(streams)}
        )


class TestVideoStream(io.ComfyNode):
    """The first stream of a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """For SaveLatent, which takes one tensor."""
        return io.Schema(
            node_id="PSATestVideoStream",
            category="psa/test",
            inputs=[io.Latent.Input("samples")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any]) -> io.NodeOutput:
        """Unpack it."""
        latent = samples["samples"]
        return io.NodeOutput({"samples": latent.unbind()[0] if getattr(latent, "is_nested", False) else latent})


FAMILY_NODES = [TestFamily, TestPrompt, TestStreams, TestVideoStream]
