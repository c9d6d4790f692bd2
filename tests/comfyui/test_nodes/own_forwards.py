"""Forwards that other packs put in the place of a model's own, of a block's attention, or of the blocks' calls."""

from __future__ import annotations

import functools
from typing import Any

import torch
from comfy_api.latest import io


def model_node(node_id: str) -> io.Schema:
    """Of a node that has one MODEL in and one out."""
    return io.Schema(
        node_id=node_id, category="psa/test", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()]
    )


class TestOwnForward(io.ComfyNode):
    """Replaces Wan's forward by one that calls the blocks without their options, as NAG's and TeaCache's packs do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with another forward out."""
        return model_node("PSATestOwnForward")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        network = patched.get_model_object("diffusion_model")
        patched.add_object_patch("diffusion_model.forward_orig", _own_forward.__get__(network))
        return io.NodeOutput(patched)


class TestBareBlocks(io.ComfyNode):
    """Has a model's forward call its blocks without their options, as TeaCache's packs do, but not what is before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with another forward out."""
        return model_node("PSATestBareBlocks")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        own = functools.partial(_with_bare_blocks, patched.get_model_object("diffusion_model"))
        patched.add_object_patch("diffusion_model.forward_orig", own)
        return io.NodeOutput(patched)


class TestOwnAttention(io.ComfyNode):
    """Replaces every self-attention's forward by one that asks nobody, as KJNodes' Sage node for less memory does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with other attention out."""
        return model_node("PSATestOwnAttention")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        for i, block in enumerate(patched.get_model_object("diffusion_model").blocks):
            for name in ("self_attn", "cross_attn"):
                own = _zeros.__get__(getattr(block, name))
                patched.add_object_patch(f"diffusion_model.blocks.{i}.{name}.forward", own)
        return io.NodeOutput(patched)


OWN_FORWARDS = [TestBareBlocks, TestOwnAttention, TestOwnForward]


_BLOCKS = ("blocks", "vace_blocks", "double_blocks", "single_blocks", "visual_transformer_blocks")


def _own_forward(
    network: Any,
    x: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    clip_fea: Any = None,
    freqs: Any = None,
    **_: Any,
) -> torch.Tensor:
    """Text-to-video of Wan's ``forward_orig``."""
    from comfy.ldm.wan.model import sinusoidal_embedding_1d

    x = network.patch_embedding(x.float()).to(x.dtype)
    grid = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    e = network.time_embedding(sinusoidal_embedding_1d(network.freq_dim, t.flatten()).to(dtype=x[0].dtype))
    e = e.reshape(t.shape[0], -1, e.shape[-1])
    e0 = network.time_projection(e).unflatten(2, (6, network.dim))
    context = network.text_embedding(context)
    for block in network.blocks:
        x = block(x, e=e0, freqs=freqs, context=context, context_img_len=None)
    return network.unpatchify(network.head(x, e), grid)


def _with_bare_blocks(network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The model's own ``forward_orig``, with functions in the place of its blocks."""
    own = {name: network._modules.pop(name) for name in _BLOCKS if name in network._modules}
    for name, blocks in own.items():
        object.__setattr__(network, name, [functools.partial(_bare, block) for block in blocks])
    try:
        return type(network).forward_orig(network, *args, **kwargs)
    finally:
        for name in own:
            object.__delattr__(network, name)
        network._modules.update(own)


def _bare(block: torch.nn.Module, *args: Any, transformer_options: Any = None, **kwargs: Any) -> Any:
    return block(*args, **kwargs)


def _zeros(attention: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.zeros_like(x)
