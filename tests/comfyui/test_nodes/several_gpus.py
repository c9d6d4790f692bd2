"""Several GPUs where there is none: ComfyUI's own split over prompts, and packs that share heads or tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import comfy.model_management
import comfy.multigpu
import torch
from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io

# The same memory under another name.
DEVICES = [torch.device("cpu"), torch.device("cpu", 1)]
# By what time the other prompt's forward has begun, on any machine.
PATIENCE = 60.0


class TestTwoDevices(io.ComfyNode):
    """ComfyUI's MultiGPU CFG Split as with two GPUs; forwards of a step begin when both of them do."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """One MODEL in, the same with a copy for the other device out; guidance has to run two prompts a step."""
        return _model_node("PSATestTwoDevices")

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Split a clone."""
        with mock.patch.object(comfy.model_management, "get_all_torch_devices", return_value=DEVICES):
            split = comfy.multigpu.create_multigpu_deepclones(model, len(DEVICES))
        together = threading.Barrier(len(DEVICES))

        def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
            together.wait(PATIENCE)
            return executor(*args, **kwargs)

        split.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "psa_test_two_devices", apply_model)
        return io.NodeOutput(split)


class TestShards(io.ComfyNode):
    """Wan's self-attention in parts, one after another, as each of several GPUs would run one of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Parts have some of the heads, or a part of the queries and all keys, or a part of the tokens alone."""
        return io.Schema(
            node_id="PSATestShards",
            category="psa/test",
            inputs=[io.Model.Input("model"), io.Combo.Input("of", options=list(_PARTS)), io.Int.Input("parts")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, of: str, parts: int) -> io.NodeOutput:
        """Patch a clone."""
        patched = model.clone()
        for i, block in enumerate(patched.get_model_object("diffusion_model").blocks):
            forward = _in_parts(block.self_attn, _PARTS[of], parts)
            patched.add_object_patch(f"diffusion_model.blocks.{i}.self_attn.forward", forward)
        return io.NodeOutput(patched)


def _in_parts(attention: Any, attend: Callable[..., torch.Tensor], parts: int) -> Callable[..., torch.Tensor]:
    """The forward of a self-attention that comes to it in parts."""

    def forward(x: torch.Tensor, freqs: torch.Tensor, transformer_options: dict[str, Any]) -> torch.Tensor:
        heads, q, k = attention.num_heads, attention.norm_q(attention.q(x)), attention.norm_k(attention.k(x))
        q, k = (apply_rope1(y.unflatten(2, (heads, -1)), freqs).flatten(2) for y in (q, k))
        return attention.o(attend(q, k, attention.v(x), heads, parts, transformer_options))

    return forward


def _heads(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, parts: int, options: dict[str, Any]
) -> torch.Tensor:
    """By Ulysses."""
    chunks = zip(*(x.chunk(parts, 2) for x in (q, k, v)), strict=True)
    return torch.cat([optimized_attention(*x, heads=heads // parts, transformer_options=options) for x in chunks], 2)


def _queries(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, parts: int, options: dict[str, Any]
) -> torch.Tensor:
    """With the keys of all."""
    chunks = q.chunk(parts, 1)
    return torch.cat([optimized_attention(x, k, v, heads=heads, transformer_options=options) for x in chunks], 1)


def _tokens(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, parts: int, options: dict[str, Any]
) -> torch.Tensor:
    """Each for itself, as attention over a window."""
    chunks = zip(*(x.chunk(parts, 1) for x in (q, k, v)), strict=True)
    return torch.cat([optimized_attention(*x, heads=heads, transformer_options=options) for x in chunks], 1)


_PARTS = {"heads": _heads, "queries": _queries, "tokens": _tokens}


def _model_node(node_id: str) -> io.Schema:
    return io.Schema(
        node_id=node_id, category="psa/test", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()]
    )


SEVERAL_GPUS = [TestShards, TestTwoDevices]
